"""Searched time steps of the training-free baselines."""

import pytest
import torch

from mobivid_core.data.captions import caption
from mobivid_core.data.render import label_of
from mobivid_core.distill.knots import SHIFTS, best_knots, grid_errors, validation_condition
from mobivid_core.distill.trajectory import student_sigmas
from mobivid_core.errors import ParameterError
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.text import encode_text

GRID = (1.0, 0.75, 0.5, 0.25, 0.0)


def noises(n=12, seed=0):
    return torch.randn(n, 4, 2, 2, 2, generator=torch.Generator().manual_seed(seed))


def polygon(bends, sigmas):
    """States of a path in one dimension whose velocity changes at `bends` alone."""
    x, states = torch.zeros(1, 1), []
    for i, sigma in enumerate(sigmas.tolist()):
        if i:
            slope = 1.0 + 3.0 * sum(sigma < bend - 1e-6 for bend in bends)
            x = x - slope * (sigma - float(sigmas[i - 1]))
        states.append(x)
    return torch.stack(states)


def test_dynamic_programming_finds_the_bends():
    """Steps that end where the velocity changes miss nothing, so they are the optimum."""
    sigmas, bends = student_sigmas(20), (0.9, 0.6, 0.15)
    knots = best_knots(polygon(bends, sigmas), sigmas, 4)
    assert knots == pytest.approx((1.0, *bends, 0.0))


def test_no_other_choice_of_steps_misses_less():
    """Against all choices of two inner knots on a random path."""
    sigmas = student_sigmas(7)
    states = noises(8, 3).reshape(8, 1, -1)

    def missed(path):
        total = 0.0
        for i, j in zip(path, path[1:], strict=False):
            v = (states[i] - states[i + 1]) / (sigmas[i] - sigmas[i + 1])
            total += (states[i] - (sigmas[i] - sigmas[j]) * v - states[j]).square().mean().item()
        return total

    every = {(a, b): missed((0, a, b, 7)) for a in range(1, 7) for b in range(a + 1, 7)}
    a, b = min(every, key=every.get)
    assert best_knots(states, sigmas, 3) == pytest.approx((1.0, float(sigmas[a]), float(sigmas[b]), 0.0))


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++"])
def test_textbook_knots_are_the_textbook_sampler(solver, teacher, condition):
    ours = Sampler(solver, 4, 1.5, "optimised steps", knots=GRID).sample(teacher, condition, noises())
    torch.testing.assert_close(ours, Sampler(solver, 4, 1.5).sample(teacher, condition, noises()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_solvers_on_other_knots_still_solve_the_equation(solver, teacher, condition):
    """Many uneven steps reach the same sample as many even ones."""
    knots = tuple((student_sigmas(24) ** 1.3).tolist())
    found = Sampler(solver, 24, 1.5, "optimised steps", knots=knots).sample(teacher, condition, noises())
    fine = Sampler("euler", 100, 1.5).sample(teacher, condition, noises())
    assert (found - fine).square().mean() < 1e-2 * (fine - noises()).square().mean()


def test_every_solver_is_tried_on_every_grid(teacher, condition):
    """The full sampler itself is among them where it has as few steps: no error."""
    found = grid_errors(teacher, condition, (4, 2, 2, 2), guidance=1.5, full_steps=8)
    assert len(found) == 3 * (len(SHIFTS) + 1) and {s.solver for s in found} == {"euler", "unipc", "dpm++"}
    assert all(s.steps == 4 and s.guidance == 1.5 for s in found) and 0 < min(found.values())
    same = grid_errors(teacher, condition, (4, 2, 2, 2), guidance=1.5, full_steps=4)
    (plain,) = (s for s in same if (s.solver, s.grid, s.shift) == ("euler", "textbook", 1.0))
    assert same[plain] < 1e-9


def test_bad_knots_and_searches_are_refused(teacher):
    with pytest.raises(ParameterError, match="fall from 1 to 0"):
        Sampler("euler", 3, 1.0, "optimised steps", knots=(1.0, 0.5, 0.6, 0.0))
    with pytest.raises(ParameterError, match="4 steps take 5 knots"):
        Sampler("euler", 4, 1.0, "optimised steps", knots=GRID[:2] + GRID[3:])
    with pytest.raises(ParameterError, match="knots belong to"):
        Sampler("euler", 4, knots=GRID)
    with pytest.raises(ParameterError, match="unknown solver"):
        Sampler("heun", 4)
    with pytest.raises(ParameterError, match="take a finer one"):
        best_knots(torch.zeros(3, 1, 1), student_sigmas(2), 4)


def test_validation_captions_are_not_test_captions():
    first, again = validation_condition(4), validation_condition(4)
    assert len(first) == 4 and torch.equal(first.text, again.text)
    test = encode_text([caption(label_of("test", i)) for i in range(4)])[0]
    assert test.shape != first.text.shape or not torch.equal(test, first.text)
