"""Checks of notebook 02's exercises: the straight path and its velocity, Euler's step, guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mobivid_core.teaching.verdict import checked, run, wrong_if

Velocity = Callable[[Tensor, float], Tensor]


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to float32 rounding of a few operations."""
    return tuple(a.shape) == tuple(b.shape) and bool(torch.allclose(a, b, atol=1e-5, rtol=1e-5))


def _example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)


@checked
def path(point: Callable[[Tensor, Tensor, float], Tensor], velocity: Callable[[Tensor, Tensor], Tensor]) -> str:
    """`point(x0, noise, sigma)` on the straight path, and `velocity(x0, noise)`, its derivative by sigma."""
    x0, noise = _example()
    at = run(point, x0, noise, 0.25)
    wrong_if(_close(at, 0.25 * x0 + 0.75 * noise), "the ends are swapped: at which sigma is a clip free of noise?")
    wrong_if(_close(at, x0 + 0.25 * noise), "noise is added here, but the path also has to *leave* the data on its way.")
    wrong_if(not _close(run(point, x0, noise, 0.0), x0), "at sigma 0 the path should be at the data.")
    wrong_if(not _close(run(point, x0, noise, 1.0), noise), "at sigma 1 the path should be at the noise.")
    halves = (run(point, x0, noise, 0.0) + run(point, x0, noise, 0.5)) / 2
    wrong_if(not _close(at, halves), "both ends are right, but the path between them is not straight.")
    v = run(velocity, x0, noise)
    wrong_if(_close(v, x0 - noise), "the sign: sigma grows towards the noise, so which way does the point move with it?")
    slope = (run(point, x0, noise, 0.75) - at) / 0.5
    wrong_if(not _close(v, slope), "the velocity is not the slope of your own path: compare two of its points.")
    return "the velocity is the slope of the path, the same at every sigma: that is why it is called a straight path."


@checked
def euler(sample: Callable[[Velocity, Tensor, int], Tensor], toy_velocity: Velocity) -> str:
    """`sample(velocity, noise, steps)`: from sigma 1 to 0 in equal Euler steps."""
    seen: list[float] = []
    noise, _ = _example()

    def constant(x: Tensor, sigma: float) -> Tensor:
        seen.append(round(float(sigma), 4))
        return torch.ones_like(x)

    end = run(sample, constant, noise, 4)
    wrong_if(not seen, "the velocity is never called.")
    wrong_if(_close(end, noise + 1), "you walk towards more noise: sigma falls, so what is the sign of each step?")
    wrong_if(_close(end, noise - 4), "each step was a whole unit of sigma long: all of them together cover one.")
    wrong_if(len(seen) != 4, f"four steps asked the velocity {len(seen)} times.")
    wrong_if(seen[-1] == 0.0, "Euler asks for the velocity where a step *starts*: your last question is at its end.")
    wrong_if(seen == sorted(seen), "sampling starts at noise: your sigmas run the other way.")
    wrong_if(seen[0] != 1.0, f"the first velocity is asked for at sigma {seen[0]}, but sampling starts at pure noise.")
    wrong_if(not _close(end, noise - 1), "with a constant velocity the end does not lie where a straight walk leads.")
    start = torch.linspace(-2, 2, 9)
    track = start
    for i in range(8):
        track = track - toy_velocity(track, 1 - i / 8) / 8
    wrong_if(not _close(run(sample, toy_velocity, start, 8), track), "right for a constant velocity, wrong once it changes.")
    spread = float(run(sample, toy_velocity, torch.linspace(-2, 2, 9), 1).std())
    return f"your sampler agrees. One step leaves a spread of {spread:.2g} of all nine starts: they land on one point."


@checked
def guidance(guided: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """`guided(with_text, without, scale)`: the velocity that a guided step follows."""
    with_text, without = _example()
    got = run(guided, with_text, without, 3.0)
    wrong_if(_close(got, with_text + 3 * (without - with_text)), "you push towards the caption-less answer, not away from it.")
    wrong_if(_close(got, with_text + 3 * (with_text - without)), "by this formula scale 0 is the captioned prediction: where does the project's start?")
    wrong_if(_close(got, 3 * with_text), "the caption-less prediction plays no part: away from *what* does guidance push?")
    wrong_if(not _close(run(guided, with_text, without, 1.0), with_text), "at scale 1 guidance must change nothing.")
    wrong_if(not _close(run(guided, with_text, without, 0.0), without), "at scale 0 the caption must have no influence.")
    wrong_if(not _close(got, without + 3 * (with_text - without)), "scales 0 and 1 are right, but the rule is not linear in the scale.")
    return "scale 1 is the plain model and anything above extrapolates: that is why too large a scale leaves the data."
