"""The student (or its teacher) conditioned on a first frame, as a sampler that can be evaluated like any other.

Paper: not part of it; asked for by a reviewer (R3.3). See `mobivid_core.models.first_frame` for the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mobivid_core.distill.solvers import Sampler
from mobivid_core.distill.trajectory import Condition, guided_velocity
from mobivid_core.errors import ParameterError
from mobivid_core.models.first_frame import FirstFrame
from mobivid_core.models.text import encode_text


def from_first_frames(model: nn.Module, sampler: Sampler, images: Tensor) -> Callable[[Sequence[str], Tensor], Tensor]:
    """A function from (captions, noise) to latents whose first frame is held.

    Args:
        model: Velocity model.
        sampler: An Euler sampler.
        images: (N, C, 1, h, w) latents of the first frames, used in order over the calls.

    Raises:
        ParameterError: Another solver than Euler.
    """
    if sampler.solver != "euler":
        raise ParameterError(f"holding the first frame is written for the Euler solver, got {sampler.solver!r}")
    null, used = encode_text([""]), 0

    @torch.no_grad()
    def sample(captions: Sequence[str], noise: Tensor) -> Tensor:
        nonlocal used
        latents = images[used : used + len(noise)]
        if len(latents) < len(noise):
            raise ParameterError(f"{used + len(noise)} clips were asked for, {len(images)} first frames were given")
        used += len(noise)
        first, x = FirstFrame(latents, noise[:, :, :1]), noise
        velocity = guided_velocity(model, Condition(*encode_text(captions), *null), sampler.guidance)
        sigmas = sampler.sigmas().tolist()
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = first.hold(x, sigma)
            x = x - (sigma - following) * velocity(x, sigma)
        return first.hold(x, 0.0)

    return sample


def first_frame_table(clips: Tensor, given: Tensor) -> dict[str, float]:
    """How well clips start with the given images and go on from them.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1].
        given: (N, 3, H, W) in [-1, 1].

    Returns:
        "first-frame PSNR, dB" (peak 2), and "jump after it": change from frame 0 to 1 over the mean change between
        later neighbours (1: no seam).
    """
    error = (clips[:, :, 0] - given).square().mean().item()
    change = clips.diff(dim=2).abs().mean((0, 1, 3, 4))
    psnr = 10 * torch.log10(torch.tensor(4.0 / max(error, 1e-12))).item()
    return {"first-frame PSNR, dB": psnr, "jump after it": float(change[0] / change[1:].mean().clamp(min=1e-9))}
