"""Samplers against ordinary differential equations with a closed-form answer."""

import math

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.flow import sampling
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance

MEAN, STD = 0.5, 0.3
SHAPE = (2, 1, 2, 2)


def _gaussian(x, timestep, text, mask):
    """Exact velocity when the data are N(MEAN, STD^2): x_s ~ N((1 - s) MEAN, (1 - s)^2 STD^2 + s^2)."""
    s = (timestep / 1000).view(-1, 1, 1, 1, 1).to(x.dtype)
    variance = (1 - s) ** 2 * STD**2 + s**2
    return -MEAN + (s - (1 - s) * STD**2) / variance * (x - (1 - s) * MEAN)


def _captions(n=3):
    return Condition(torch.zeros(n, 2, 4), torch.ones(n, 2, dtype=torch.bool))


def _noise(n=3, seed=0):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def _error(solver, steps):
    """The probability-flow ODE maps noise z to MEAN + STD z exactly."""
    noise = _noise()
    got = sampling.sample_latents(_gaussian, _captions(), noise, steps, solver=solver)
    return (got - (MEAN + STD * noise)).abs().max().item()


def test_euler_converges_at_first_order():
    order = math.log2(_error("euler", 40) / _error("euler", 80))
    assert 0.85 < order < 1.15  # 1 in the limit; at 40 steps the next term still shows


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_second_order_solvers_beat_euler(solver):
    # Measured ratios: .07 and .09 at 20 steps, .05 and .14 at 80 (DPM++ ends with a first-order step).
    assert _error(solver, 20) < 0.25 * _error("euler", 20)
    assert _error(solver, 80) < 0.25 * _error("euler", 80)


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++"])
def test_straight_paths_are_exact_in_any_number_of_steps(solver):
    """Data at one point: paths are straight lines, which every solver follows without error."""

    def to_point(x, timestep, text, mask):
        return (x - MEAN) / (timestep / 1000).view(-1, 1, 1, 1, 1)

    for steps in (1, 2, 5):
        got = sampling.sample_latents(to_point, _captions(), _noise(), steps, solver=solver)
        # Multistep solvers start at sigma = 1 - 1e-6, hence more than round-off.
        torch.testing.assert_close(got, torch.full_like(got, MEAN), atol=2e-5, rtol=0)


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_grid_is_the_textbook_one(solver, shift):
    scheduler = sampling.make_scheduler(solver, shift)
    sampling.set_sigmas(scheduler, sampling.scheduler_grid(scheduler, 4)[:-1])
    plain = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    expected = shift * plain / (1 + (shift - 1) * plain)
    torch.testing.assert_close(scheduler.sigmas, expected, atol=2e-6, rtol=0)  # 1 - 1e-6 in multistep solvers
    torch.testing.assert_close(scheduler.timesteps, 1000 * expected[:-1], atol=1e-3, rtol=0)


def test_the_default_grid_of_diffusers_is_the_trap_we_avoid():
    """If diffusers mends its grid, this fails and the note in the module can go."""
    scheduler = sampling.make_scheduler("euler")
    scheduler.set_timesteps(4)
    assert scheduler.sigmas[3] < 0.01


def test_timesteps_reach_the_model_unrounded():
    seen = []
    model = lambda x, timestep, text, mask: seen.append(timestep[0].item()) or torch.zeros_like(x)  # noqa: E731
    for solver in ("euler", "unipc", "dpm++"):
        seen.clear()
        sampling.sample_latents(model, _captions(1), _noise(1), 7, solver=solver)
        assert seen == pytest.approx([1000 * s for s in sampling.textbook_sigmas(7)], abs=1e-3)


def test_guidance_extrapolates_from_the_empty_caption():
    """Velocity equals the first text value: guidance g must give null + g (text - null)."""

    def reads_text(x, timestep, text, mask):
        return torch.zeros_like(x) + text[:, 0, 0].view(-1, 1, 1, 1, 1)

    text, mask = torch.full((2, 2, 4), 2.0), torch.ones(2, 2, dtype=torch.bool)
    condition = Condition(text, mask, torch.full((1, 1, 4), 0.5), torch.ones(1, 1, dtype=torch.bool))
    noise = torch.zeros(2, *SHAPE)
    for g in (0.0, 1.0, 3.0):
        got = sampling.sample_latents(reads_text, condition, noise, 2, guidance=g)
        torch.testing.assert_close(got, torch.full_like(got, -(0.5 + g * 1.5)))


def test_euler_is_that_of_diffusers_to_the_bit():
    grid, velocity = sampling.textbook_grid(7), sampling.guided_velocity(_gaussian, _captions())
    ours = sampling.solver_path(velocity, _noise(), grid)
    *_, theirs = sampling.integrate(velocity, _noise(), grid, sampling.make_scheduler("euler"))
    assert torch.equal(ours[-1], theirs.x) and len(ours) == 8 and torch.equal(ours[0], _noise())


def test_a_point_may_be_moved_on_the_way():
    """Held at MEAN, the end stays there; the loop goes on from what was put in place."""
    seen = []
    for point in sampling.integrate(lambda x, sigma: seen.append(x) or x, _noise(), sampling.textbook_grid(3)):
        point.x = torch.full_like(point.x, MEAN)
    assert (point.step, point.sigma) == (3, 0.0) and all((x == MEAN).all() for x in seen)


def test_noise_levels_of_their_own_are_guided_one_by_one():
    def by_text(x, timestep, text, mask):
        return x * text[:, :1, :1, None, None]

    text = torch.full((2, 2, 4), 2.0)
    condition = Condition(text, torch.ones(2, 2).bool(), text[:1] / 4, torch.ones(1, 2).bool())
    for guidance in (3.0, Guidance(3.0, 0.0, 0.5), Guidance(2.0, rescale=0.7), 1.0):
        velocity = sampling.guided_velocity(
            lambda x, t, text, mask: x * text[:, :1, :1, None, None], condition, guidance
        )
        x = _noise(2)
        both, alone = velocity(x, torch.tensor([0.3, 0.9])), [velocity(x, sigma) for sigma in (0.3, 0.9)]
        torch.testing.assert_close(both, torch.stack([alone[0][0], alone[1][1]]))


def test_batches_do_not_change_the_result():
    runs = [sampling.sample_latents(_gaussian, _captions(5), _noise(5), 3, batch=b) for b in (2, 5)]
    torch.testing.assert_close(runs[0], runs[1])
    assert runs[0].shape == (5, *SHAPE)


def test_bad_calls_say_what_is_missing():
    with pytest.raises(ParameterError, match="null_text"):
        sampling.sample_latents(_gaussian, _captions(), _noise(), 2, guidance=3.0)
    with pytest.raises(ParameterError, match="noise must be"):
        sampling.sample_latents(_gaussian, _captions(), _noise(1), 2)
    with pytest.raises(ParameterError, match="unipc"):
        sampling.make_scheduler("heun")
    with pytest.raises(ParameterError, match="at least one"):
        sampling.textbook_sigmas(0)
