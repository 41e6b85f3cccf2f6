"""Checks of exercise notebook 02: Euler steps, guidance, and what one step can reach."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mobivid_core.flow.toy import LineMixture
from mobivid_core.lab.teaching.verdict import Wrong, checked, compare, run


def _like(found: object, right: Tensor) -> bool:
    return isinstance(found, Tensor) and found.shape == right.shape and torch.allclose(found, right, atol=1e-5)


@checked
def sampling(euler_step: Callable[..., Tensor], guided_velocity: Callable[..., Tensor]) -> str:
    """One step of a sampler with guidance: euler_step(x, v, sigma, sigma_next), guided_velocity(v_empty, v_text, g)."""
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 2, 4, 3, 2, 2, generator=generator)
    v, middle = noise - data, 0.6 * noise + 0.4 * data
    found = run(euler_step, middle, v, 0.6, 0.0)
    if _like(found, 1.2 * noise - 0.2 * data):
        raise Wrong("`euler_step` walks towards the noise: mind the sign of the step.")
    if not _like(found, data):
        raise Wrong("`euler_step`: with the true velocity, one step from sigma 0.6 to 0 has to land on the data.")
    part = run(euler_step, middle, v, 0.6, 0.2)
    if not _like(part, 0.2 * noise + 0.8 * data):
        raise Wrong("`euler_step` is right to 0 but not to sigma 0.2: a step's length is a difference of two levels.")
    empty, text = noise, data
    at_one = run(guided_velocity, empty, text, 1.0)
    if _like(at_one, empty):
        raise Wrong("`guided_velocity`: the roles of empty caption and caption are swapped.")
    if _like(at_one, 2 * text - empty):
        raise Wrong(
            "`guided_velocity`: g = 1 has to mean no guidance, which is the caption's own velocity. From which of the "
            "two do you start?"
        )
    if not _like(at_one, text):
        raise Wrong("`guided_velocity`: g = 1 has to give the caption's own velocity.")
    far = run(guided_velocity, empty, text, 4.0)
    if not _like(far, 4 * text - 3 * empty):
        raise Wrong("`guided_velocity`: above g = 1 it has to go on along the same line, past the caption's.")
    return "the step lands where it should, and g = 1 is no guidance."


@checked
def one_step(landing: float, fewest_steps: int, toy: LineMixture) -> str:
    """Where one Euler step lands, and the fewest steps whose samples have 95 % of the data's spread."""
    mean = sum(w * m for w, m in zip(toy.weights, toy.means, strict=True))
    bump = "`landing`: that is one of the two bumps. At pure noise, how could the model know which?"
    compare(landing, mean, dict.fromkeys(toy.means, bump) | {
        sum(toy.means) / len(toy.means): "`landing`: the bumps do not have equal shares of the data.",
    }, "`landing`: the best answer at pure noise is an average. Of what?", rel_tol=0.02)  # fmt: skip
    goal = 0.95 * toy.draw(4000, 0).std().item()
    if fewest_steps < 1 or fewest_steps != int(fewest_steps):
        raise Wrong("`fewest_steps` is a whole number, at least one.")
    if toy.sample(4000, int(fewest_steps), 0).std().item() < goal:
        raise Wrong("`fewest_steps`: at that many the samples still lie too close.")
    if fewest_steps > 1 and toy.sample(4000, int(fewest_steps) - 1, 0).std().item() >= goal:
        raise Wrong("`fewest_steps`: one step fewer reaches the spread as well.")
    return "one step gives the mean of all data, a blur, though the velocity is exact; more steps restore the spread."
