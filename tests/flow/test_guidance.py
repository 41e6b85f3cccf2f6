"""Guidance variants: equal to the constant scale at their trivial settings, cheaper outside the interval."""

import math

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.flow import sampling
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance, as_guidance

SHAPE = (2, 1, 2, 2)
TEXT, MASK = torch.full((3, 2, 4), 2.0), torch.ones(3, 2, dtype=torch.bool)
CAPTIONS = Condition(TEXT, MASK, torch.full((1, 1, 4), 0.5), torch.ones(1, 1, dtype=torch.bool))


class Pull:
    """Velocity towards a point that the caption names; counts the clips it is asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, x, timestep, text, mask):
        self.asked.append(len(x))
        sigma = (timestep / 1000).view(-1, 1, 1, 1, 1)
        target = text[:, 0, 0].view(-1, 1, 1, 1, 1)
        return (x - target * (1 - 0.5 * x.tanh())) / (sigma + 0.1)


def _sample(guidance, steps=8, solver="euler", model=None):
    model = Pull() if model is None else model
    noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    return sampling.sample_latents(model, CAPTIONS, noise, steps, guidance=guidance, solver=solver)


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++"])
def test_trivial_settings_are_the_constant_scale(solver: str) -> None:
    constant = _sample(3.0, solver=solver)
    assert torch.equal(_sample(Guidance(3.0), solver=solver), constant)
    # an interval that holds every step of the grid, and a rescaling too small to matter: float32 rounding
    torch.testing.assert_close(_sample(Guidance(3.0, low=0.01), solver=solver), constant)
    torch.testing.assert_close(_sample(Guidance(3.0, rescale=1e-7), solver=solver), constant, atol=1e-4, rtol=1e-4)
    assert torch.equal(_sample(Guidance(1.0, 0.2, 0.8, 0.7), solver=solver), _sample(1.0, solver=solver))


def test_outside_the_interval_the_empty_caption_is_not_asked_for() -> None:
    guidance, model = Guidance(3.0, low=0.25, high=0.75), Pull()
    _sample(guidance, steps=4, model=model)  # sigma 1, .75, .5, .25
    assert model.asked == [3, 6, 6, 3]
    assert guidance.evaluations(sampling.textbook_sigmas(4)) == sum(model.asked) / 3 == 6
    assert as_guidance(1).evaluations([1.0, 0.5]) == 2 and as_guidance(3.0).evaluations([1.0, 0.5]) == 4


def test_intervals_side_by_side_cover_each_level_once() -> None:
    """Also after a timestep has been to float32 and back."""
    for steps in (3, 7, 10, 40):
        for sigma in sampling.textbook_sigmas(steps):
            seen = float(torch.tensor(1000 * sigma)) / 1000
            for cut in (0.1, 0.3, 0.7, 2 / 3):
                assert Guidance(2.0, 0.0, cut).inside(seen) != Guidance(2.0, cut, 1.0).inside(seen)


def test_rescaling_gives_the_conditional_spread() -> None:
    g = torch.Generator().manual_seed(0)
    x, without, with_text = (torch.randn(4, 3, 2, 2, 2, generator=g) for _ in range(3))
    sigma = 0.6
    spread = {
        phi: (x - sigma * Guidance(5.0, rescale=phi).combine(x, sigma, without, with_text)) for phi in (0, 0.5, 1)
    }
    axes = (1, 2, 3, 4)
    wanted = (x - sigma * with_text).std(axes)
    torch.testing.assert_close(spread[1].std(axes), wanted)
    # the direction stays, and the share is linear in phi
    torch.testing.assert_close(spread[0.5], (spread[0] + spread[1]) / 2)
    assert (spread[0].std(axes) > wanted).all()


def test_levels_of_their_own_are_combined_one_by_one() -> None:
    g = torch.Generator().manual_seed(0)
    x, without, with_text = (torch.randn(2, 3, 2, 2, 2, generator=g) for _ in range(3))
    levels, guidance = torch.tensor([0.3, 0.9]).view(2, 1, 1, 1, 1), Guidance(3.0, rescale=0.7)
    together = guidance.combine(x, levels, without, with_text)
    for i, sigma in enumerate((0.3, 0.9)):
        alone = guidance.combine(x[i : i + 1], sigma, without[i : i + 1], with_text[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize(
    "guidance", [Guidance(3.0, 0.3, 0.8), Guidance(3.0, rescale=0.7), Guidance(2.0, 0.0, 0.6, 0.5)]
)
def test_solvers_agree_with_many_steps(guidance: Guidance) -> None:
    """One ordinary differential equation, whichever the solver; the field jumps at the interval's ends."""
    fine = _sample(guidance, steps=400)
    for solver in ("unipc", "dpm++"):
        assert (_sample(guidance, steps=200, solver=solver) - fine).abs().max() < 0.05 * fine.abs().max()


def test_names_and_keys() -> None:
    assert Guidance(3.0).key == 3.0 and f"{Guidance(3.0):g}" == "3"
    limited = Guidance(3.0, 0.2, 0.8, 0.7)
    assert limited.key == (3.0, 0.2, 0.8, 0.7) and f"{limited:g}" == "3 at sigma 0.2 to 0.8, rescaled 0.7"
    assert as_guidance(limited) is limited and as_guidance(2) == Guidance(2.0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [((math.inf,), "finite"), ((-1.0,), "from 0 up"), ((3.0, 0.5, 0.5), "low < high"), ((3.0, 0, 1, 1.5), "share")],
)
def test_bad_settings_are_refused(settings: tuple, text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        Guidance(*settings)
