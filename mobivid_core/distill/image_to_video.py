"""Student or teacher conditioned on a first frame, as a sampler that can be evaluated like any other.

Paper: not part of it; asked for by a reviewer (R3.3). See `mobivid_core.models.first_frame` for the method.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.sampling import guided_velocity, integrate
from mobivid_core.models.first_frame import FirstFrame
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.text import CaptionSampler, on_captions


def from_first_frames(model: nn.Module, sampler: Sampler, images: Tensor) -> CaptionSampler:
    """A function from (captions, noise) to latents whose first frame is held (Euler samplers only).

    `images` (N, C, 1, h, w) are latents of the first frames, used in order over the calls.
    """
    if sampler.solver != "euler":
        raise ParameterError(f"holding the first frame is written for the Euler solver, got {sampler.solver!r}")
    used = 0

    @torch.no_grad()
    def sample(condition: Condition, noise: Tensor) -> Tensor:
        nonlocal used
        latents = images[used : used + len(noise)].to(noise.device)
        if len(latents) < len(noise):
            raise ParameterError(f"{used + len(noise)} clips were asked for, {len(images)} first frames were given")
        used += len(noise)
        first = FirstFrame(latents, noise[:, :, :1])
        for point in integrate(guided_velocity(model, condition, sampler.guidance), noise, sampler.sigmas()):
            point.x = first.hold(point.x, point.sigma)
        return point.x

    return on_captions(sample, model)


def first_frame_table(clips: Tensor, given: Tensor) -> dict[str, float]:
    """How well clips (N, 3, T, H, W) in [-1, 1] start with the given images (N, 3, H, W) and continue from them.

    Returns:
        "first-frame PSNR, dB" (peak 2), and "jump after it": change from frame 0 to 1 over the mean change between
        later neighbours (1: no seam).
    """
    error = (clips[:, :, 0] - given).square().mean().item()
    change = clips.diff(dim=2).abs().mean((0, 1, 3, 4))
    psnr = 10 * torch.log10(torch.tensor(4.0 / max(error, 1e-12))).item()
    return {"first-frame PSNR, dB": psnr, "jump after it": float(change[0] / change[1:].mean().clamp(min=1e-9))}
