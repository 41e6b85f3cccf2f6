"""Checks of exercise notebook 05: the grid of a few-step sampler, and chords as regression targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mobivid_core.distill.trajectory import student_sigmas
from mobivid_core.teaching.verdict import checked, run, wrong_if


@checked
def grid(textbook_grid: Callable[[int], Tensor], useful_steps: int, default: Tensor) -> str:
    """Noise levels of few Euler steps.

    Args:
        textbook_grid: steps -> (steps + 1,) noise levels.
        useful_steps: Steps of `default` that cover more than 1 % of the way.
        default: (5,) the grid of diffusers' default call.
    """
    for steps in (1, 4, 7):
        found, right = torch.as_tensor(run(textbook_grid, steps)).float(), student_sigmas(steps)
        wrong_if(
            found.shape == (steps,), f"`textbook_grid({steps})`: that many steps have one noise level more than that."
        )
        wrong_if(found.shape != right.shape, f"`textbook_grid({steps})` has the shape {tuple(found.shape)}.")
        wrong_if(
            torch.allclose(found, right.flip(0)) and steps > 0,
            "`textbook_grid` runs from data to noise; sampling starts at noise.",
        )
        wrong_if(found[-1] != 0, f"`textbook_grid({steps})` does not end at the data.")
        wrong_if(
            not torch.allclose(found, right, atol=1e-6),
            f"`textbook_grid({steps})`: its steps are not all of the same length.",
        )
    covered = int((-default.diff() > 0.01).sum())
    wrong_if(
        useful_steps > covered,
        "`useful_steps`: look at how far each step of the default grid goes, the last one above all.",
    )
    wrong_if(
        useful_steps != covered,
        "`useful_steps`: too few; count every step that covers more than a hundredth of the way.",
    )
    return "so a comparison with the default call would pay for a step that does next to nothing."


@checked
def chords(chord_targets: Callable[..., Tensor]) -> str:
    """Regression targets from a trajectory.

    Args:
        chord_targets: (states (n + 1, ...), sigmas (n + 1,)) -> (n, ...) velocities.
    """
    generator = torch.Generator().manual_seed(2)
    sigmas = torch.tensor([1.0, 0.7, 0.3, 0.1, 0.0])
    states = torch.randn(5, 3, 2, generator=generator)
    found = torch.as_tensor(run(chord_targets, states, sigmas))
    wrong_if(found.shape == states.shape, "one target for each step, not for each state: there is one step fewer.")
    wrong_if(found.shape != (4, 3, 2), f"the shape should be that of four states, got {tuple(found.shape)}.")
    moves = states[:-1] - states[1:]
    wrong_if(
        torch.allclose(found, moves) or torch.allclose(found, -moves),
        "these are moves. A velocity is a move over the length of its step, and these steps differ in length.",
    )
    walked = states[:-1] + found * sigmas.diff()[:, None, None]
    wrong_if(
        torch.allclose(states[:-1] - found * sigmas.diff()[:, None, None], states[1:], atol=1e-5),
        "the sign is off: dx / d sigma, and sigma falls along the way.",
    )
    wrong_if(
        not torch.allclose(walked, states[1:], atol=1e-5),
        "an Euler step with your target does not lead to the next state.",
    )
    return "Euler steps along the chords pass through every state of the trajectory."
