"""Checks of exercise notebook 02: Euler steps, guidance, and what one step can reach."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mobivid_core.flow.toy import LineMixture
from mobivid_core.lab.teaching.verdict import checked, run, wrong_if


def _like(found: object, right: Tensor) -> bool:
    return isinstance(found, Tensor) and found.shape == right.shape and torch.allclose(found, right, atol=1e-5)


@checked
def sampling(euler_step: Callable[..., Tensor], guided_velocity: Callable[..., Tensor]) -> str:
    """One step of a sampler with guidance.

    Args:
        euler_step: (x, v, sigma, sigma_next) -> x at sigma_next.
        guided_velocity: (v_empty, v_text, g) -> guided velocity.
    """
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 2, 4, 3, 2, 2, generator=generator)
    v, middle = noise - data, 0.6 * noise + 0.4 * data
    found = run(euler_step, middle, v, 0.6, 0.0)
    wrong_if(_like(found, 1.2 * noise - 0.2 * data), "`euler_step` walks towards the noise: mind the sign of the step.")
    wrong_if(
        not _like(found, data),
        "`euler_step`: with the true velocity, one step from sigma 0.6 to 0 has to land on the data.",
    )
    part = run(euler_step, middle, v, 0.6, 0.2)
    wrong_if(
        not _like(part, 0.2 * noise + 0.8 * data),
        "`euler_step` is right down to 0 but not to sigma 0.2: the length of a step is a difference "
        "of two noise levels.",
    )
    empty, text = noise, data
    at_one = run(guided_velocity, empty, text, 1.0)
    wrong_if(
        _like(at_one, empty),
        "`guided_velocity`: the roles of empty caption and caption are swapped.",
    )
    wrong_if(
        _like(at_one, 2 * text - empty),
        "`guided_velocity`: g = 1 has to mean no guidance, which is the caption's own velocity. From "
        "which of the two do you start?",
    )
    wrong_if(not _like(at_one, text), "`guided_velocity`: g = 1 has to give the caption's own velocity.")
    far = run(guided_velocity, empty, text, 4.0)
    wrong_if(
        not _like(far, 4 * text - 3 * empty),
        "`guided_velocity`: above g = 1 it has to go on along the same line, past the caption's.",
    )
    return "the step lands where it should, and g = 1 is no guidance."


@checked
def one_step(landing: float, fewest_steps: int, toy: LineMixture) -> str:
    """Where one Euler step lands, and how many it takes to recover the spread.

    Args:
        landing: Where all samples land in one step.
        fewest_steps: Fewest steps whose samples have 95 % of the data's spread.
        toy: The data.
    """
    mean = sum(w * m for w, m in zip(toy.weights, toy.means, strict=True))
    for bump in toy.means:
        wrong_if(
            math.isclose(landing, bump, abs_tol=0.02),
            "`landing`: that is one of the two bumps. At pure noise, how could the model know which one to aim at?",
        )
    middle = sum(toy.means) / len(toy.means)
    wrong_if(
        math.isclose(landing, middle, abs_tol=0.02) and not math.isclose(mean, middle, abs_tol=0.02),
        "`landing`: the bumps do not have equal shares of the data.",
    )
    wrong_if(
        not math.isclose(landing, mean, abs_tol=0.02),
        "`landing`: the best answer at pure noise is an average. Of what?",
    )
    goal = 0.95 * toy.draw(4000, 0).std().item()
    wrong_if(fewest_steps < 1 or fewest_steps != int(fewest_steps), "`fewest_steps` is a whole number, at least one.")
    wrong_if(
        toy.sample(4000, int(fewest_steps), 0).std().item() < goal,
        "`fewest_steps`: at that many the samples still lie too close.",
    )
    wrong_if(
        fewest_steps > 1 and toy.sample(4000, int(fewest_steps) - 1, 0).std().item() >= goal,
        "`fewest_steps`: one step fewer reaches the spread as well.",
    )
    return (
        "one step gives the mean of all data, a blur; the spread comes back with the steps, though the "
        "velocity was exact."
    )
