"""One small denoiser per VAE at equal training compute: does the better codec give the better video (R2.2)?

Every denoiser has the same blocks; only the channels of its first and last layer follow the latent. All get the same
captioned clips and the same number of floating-point operations, so that a latent of fewer tokens is seen more often.
They are far too small and short to be good: the question is their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobivid_core.data.captions import ClipLabel
from mobivid_core.deploy.counts import dit_flops
from mobivid_core.diffusion.flow import flow_loss
from mobivid_core.diffusion.sampling import sample_latents
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.training.latents import LatentDataset, with_captions
from mobivid_core.training.loop import TrainSettings, train
from mobivid_core.training.pool import to_float

#: A backward pass costs twice its forward pass.
_TRAINING_OVER_FORWARD = 3


@dataclass(frozen=True)
class SmallDenoiser:
    """A trained denoiser and what it cost.

    Attributes:
        model: The denoiser, averaged weights.
        tokens: Tokens of a clip.
        forward_gflop: One forward pass of one clip.
        steps: Optimiser steps that the compute paid for.
        loss: Mean flow-matching loss over the last tenth of the steps; not comparable between latents.
        seconds: Training time.
    """

    model: MobiVidTransformer3DModel
    tokens: int
    forward_gflop: float
    steps: int
    loss: float
    seconds: float


def small_sizes(channels: int) -> DiTConfig:
    """Sizes of the small denoiser: 4 blocks of width 64."""
    return DiTConfig.uniform(blocks=4, heads=4, ffn=256, hidden=64, head_dim=16, in_channels=channels, text_dim=384)


def steps_for(forward_flops: float, tflop: float, batch: int) -> int:
    """Optimiser steps that a compute pays for, at least 1."""
    return max(1, round(tflop * 1e12 / (_TRAINING_OVER_FORWARD * batch * forward_flops)))


@torch.no_grad()
def encoded(vae: MobiVidVAE, clips: Tensor, labels: Sequence[ClipLabel], batch: int = 16) -> LatentDataset:
    """Latents of clips (N, 3, T, H, W) uint8 with their captions."""
    vae.eval()
    return with_captions(
        torch.cat([vae.encode_latents(to_float(part)).half() for part in clips.split(batch)]), [*labels]
    )


def train_denoiser(
    data: LatentDataset, *, tflop: float, batch: int = 8, seed: int = 0, learning_rate: float = 2e-3
) -> SmallDenoiser:
    """Train the small denoiser on one VAE's latents.

    Args:
        data: Latents and captions.
        tflop: Training compute, 10^12 floating-point operations, forward and backward together.
        batch: Clips a step.
        seed: Seed of weights and draws.
        learning_rate: Peak rate.
    """
    channels, *grid = data.latents.shape[1:]
    sizes = small_sizes(channels)
    forward = dit_flops(sizes, tuple(grid), data.text.shape[1])["total"]
    steps = steps_for(forward, tflop, batch)
    torch.manual_seed(seed)
    model = MobiVidTransformer3DModel.from_sizes(sizes)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        return flow_loss(model, *data.draw(batch, generator), generator, drop_text=0.0)

    settings = TrainSettings(
        steps, learning_rate=learning_rate, warmup=steps // 10 + 1, ema=0.98, seed=seed, log_every=1
    )
    result = train(model, loss, settings, progress=False)
    last = [row["loss"] for row in result.log[-max(1, steps // 10) :]]
    tokens = grid[0] * grid[1] * grid[2]
    return SmallDenoiser(result.averaged, tokens, forward / 1e9, steps, sum(last) / len(last), result.seconds)


@torch.no_grad()
def generated(
    denoiser: SmallDenoiser, vae: MobiVidVAE, asked: LatentDataset, *, steps: int = 8, seed: int = 0, batch: int = 8
) -> Tensor:
    """Clips (N, 3, T, H, W) for the captions of `asked`, without guidance; its latents give only the shape.

    Args:
        denoiser: From `train_denoiser` on the same VAE.
        vae: Decodes.
        asked: Captions to generate for.
        steps: Euler steps.
        seed: Seed of the noise.
        batch: Clips at once: fine latents have many tokens.
    """
    vae.eval()
    _, text, mask = asked.batch(torch.arange(len(asked)))
    latents = sample_latents(
        denoiser.model, text, mask, tuple(asked.latents.shape[1:]), steps=steps, generator=seed, batch=batch
    )
    return torch.cat([vae.decode_latents(part) for part in latents.split(batch)])
