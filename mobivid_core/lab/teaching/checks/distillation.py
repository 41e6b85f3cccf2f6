"""Checks of exercise notebook 05: the grid of a few-step sampler, chords, what the loss and the spread see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mobivid_core.distill.trajectory import student_sigmas
from mobivid_core.flow.sampling import solver_path
from mobivid_core.flow.toy import LineMixture
from mobivid_core.lab.teaching.verdict import Wrong, checked, compare, run


@checked
def grid(textbook_grid: Callable[[int], Tensor], useful_steps: int, default: Tensor) -> str:
    """Noise levels of few Euler steps, and steps of diffusers' default grid that cover more than 1 % of the way."""
    for steps in (1, 4, 7):
        found, right = torch.as_tensor(run(textbook_grid, steps)).float(), student_sigmas(steps)
        if found.shape == (steps,):
            raise Wrong(f"`textbook_grid({steps})`: that many steps have one noise level more than that.")
        if found.shape != right.shape:
            raise Wrong(f"`textbook_grid({steps})` has the shape {tuple(found.shape)}.")
        if torch.allclose(found, right.flip(0)):
            raise Wrong("`textbook_grid` runs from data to noise; sampling starts at noise.")
        if found[-1] != 0:
            raise Wrong(f"`textbook_grid({steps})` does not end at the data.")
        if not torch.allclose(found, right, atol=1e-6):
            raise Wrong(f"`textbook_grid({steps})`: its steps are not all of the same length.")
    covered = int((-default.diff() > 0.01).sum())
    if useful_steps > covered:
        raise Wrong("`useful_steps`: look at how far each step of the default grid goes, the last one above all.")
    if useful_steps != covered:
        raise Wrong("`useful_steps`: too few; count every step that covers more than a hundredth of the way.")
    return "so a comparison with the default call would pay for a step that does next to nothing."


@checked
def chords(chord_targets: Callable[..., Tensor]) -> str:
    """Regression targets (n, ...) from the states (n + 1, ...) and noise levels (n + 1,) of a trajectory."""
    generator = torch.Generator().manual_seed(2)
    sigmas = torch.tensor([1.0, 0.7, 0.3, 0.1, 0.0])
    states = torch.randn(5, 3, 2, generator=generator)
    found = torch.as_tensor(run(chord_targets, states, sigmas))
    if found.shape == states.shape:
        raise Wrong("one target for each step, not for each state: there is one step fewer.")
    if found.shape != (4, 3, 2):
        raise Wrong(f"the shape should be that of four states, got {tuple(found.shape)}.")
    moves = states[:-1] - states[1:]
    if torch.allclose(found, moves) or torch.allclose(found, -moves):
        raise Wrong("these are moves; a velocity is a move over the length of its step, and these lengths differ.")
    walked = states[:-1] + found * sigmas.diff()[:, None, None]
    if torch.allclose(states[:-1] - found * sigmas.diff()[:, None, None], states[1:], atol=1e-5):
        raise Wrong("the sign is off: dx / d sigma, and sigma falls along the way.")
    if not torch.allclose(walked, states[1:], atol=1e-5):
        raise Wrong("an Euler step with your target does not lead to the next state.")
    return "Euler steps along the chords pass through every state of the trajectory."


@checked
def loss_and_spread(trajectory_loss: Callable[..., float], spread: Callable[..., float]) -> str:
    """trajectory_loss(velocity, states, noise levels), and spread(features (captions, repeats, F)) of samples."""
    toy, starts = LineMixture(), torch.linspace(-2, 2, 9)

    def student(x: Tensor, sigma: float) -> Tensor:
        return toy(x, torch.full((len(x),), 1000 * float(sigma)))

    sigmas, levels = student_sigmas(4), torch.tensor([1.0, 0.7, 0.3, 0.1, 0.0])
    own = float(run(trajectory_loss, student, torch.stack(solver_path(student, starts, sigmas)), sigmas))
    uneven = float(run(trajectory_loss, student, torch.stack(solver_path(student, starts, levels)), levels))
    if own > 1e-8:  # squared float32 rounding
        raise Wrong(
            f"`trajectory_loss`: the student made these very states by Euler steps of its own, and you find {own:.2g}. "
            "Where on a step does Euler ask for the velocity, and in which direction does sigma go?"
        )
    if uneven > 1e-8:
        raise Wrong("`trajectory_loss` fails where the steps differ in length: is a move compared with a velocity?")
    states = toy.paths(starts.tolist(), steps=40)[::10]
    targets = states.diff(dim=0) / sigmas.diff()[:, None]
    errors = torch.stack([student(states[i], sigmas[i]) - targets[i] for i in range(4)])
    found, right = float(run(trajectory_loss, student, states, sigmas)), float(errors.square().mean())
    if found < 1e-8:
        raise Wrong("`trajectory_loss`: a path of forty steps bends between the levels, and your loss does not notice.")
    compare(found, right, {}, f"`trajectory_loss` is {found / right:.3g} times the mean of the squared errors.", 1e-4)
    features = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(4))
    expected = float(torch.stack([torch.nn.functional.pdist(f).mean() for f in features]).mean())
    far, collapsed = float(run(spread, features)), float(run(spread, features[:, :1].expand(3, 4, 5)))
    if collapsed > 1e-5:
        raise Wrong("`spread`: four equal clips a caption have no spread. Do clips of other captions count in yours?")
    compare(far, expected, {
        expected * 3 / 4: "`spread` is too small: a clip is at no distance from itself, and that is no pair.",
    }, f"`spread` is {far / expected:.3g} times the mean distance of the pairs.", 1e-4)  # fmt: skip
    return "a student that is the teacher, step for step, has nothing to learn; it learns the bend, and guidance."
