"""One small denoiser per VAE at equal training compute: does a better codec give better video (R2.2)?

Every denoiser has the same blocks; only the channels of its first and last layer follow the latent. All get the same
captioned clips and the same number of floating-point operations, so that a latent of fewer tokens is seen more often.
They are far too small and short to be good: the question is their order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.data.captions import ClipLabel, label_indices
from mobivid_core.data.latents import LatentDataset, with_captions
from mobivid_core.data.pool import to_float
from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import flow_loss
from mobivid_core.flow.sampling import sample_latents
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.measure.reconstruction import psnr, reconstruct
from mobivid_core.measure.subscores import brief_scores
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import dit_flops
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.train.loop import TrainSettings, train

Captioned = tuple[Tensor, Sequence[ClipLabel]]
#: A backward pass costs twice its forward pass.
_TRAINING_OVER_FORWARD = 3


@dataclass(frozen=True)
class SmallDenoiser:
    """A trained denoiser (averaged weights): tokens of a clip, GFLOP of its forward pass, steps that were paid for."""

    model: MobiVidTransformer3DModel
    tokens: int
    forward_gflop: float
    steps: int


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
    latents = torch.cat([vae.encode_latents(to_float(part)).half() for part in clips.split(batch)])
    return with_captions(latents, [*labels])


def train_denoiser(data: LatentDataset, *, tflop: float, batch: int = 8, seed: int = 0) -> SmallDenoiser:
    """Train the small denoiser on one VAE's latents, for 10^12 * `tflop` operations forward and backward together."""
    channels, *grid = data.latents.shape[1:]
    sizes = small_sizes(channels)
    forward = dit_flops(sizes, tuple(grid), data.text.shape[1])["total"]
    steps = steps_for(forward, tflop, batch)
    torch.manual_seed(seed)
    model = MobiVidTransformer3DModel.from_sizes(sizes)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        latents, text, mask = data.draw(batch, generator)
        return flow_loss(model, latents, Condition(text, mask), generator, drop_text=0.0)

    settings = TrainSettings(steps, learning_rate=2e-3, warmup=steps // 10 + 1, ema=0.98, seed=seed, log_every=1)
    averaged = train(model, loss, settings, progress=False).averaged
    return SmallDenoiser(averaged, math.prod(grid), forward / 1e9, steps)


@torch.no_grad()
def generated(
    denoiser: SmallDenoiser, vae: MobiVidVAE, asked: LatentDataset, *, steps: int = 8, seed: int = 0, batch: int = 8
) -> Tensor:
    """Clips (N, 3, T, H, W) for the captions of `asked` in Euler steps without guidance; its latents give the shape."""
    vae.eval()
    _, text, mask = asked.batch(torch.arange(len(asked)))
    noise = torch.randn(asked.latents.shape, generator=torch.Generator().manual_seed(seed))
    latents = sample_latents(denoiser.model, Condition(text, mask), noise, steps, batch=batch)
    return torch.cat([vae.decode_latents(part) for part in latents.split(batch)])


@dataclass(frozen=True)
class OneEach:
    """What one denoiser per VAE generated: a row a VAE, and {VAE: (N,) 1 where a clip shows all that was asked for}."""

    table: pd.DataFrame
    right: dict[str, np.ndarray]

    def channels_gain(self) -> tuple[str, str, Interval]:
        """Among VAEs of the fewest tokens: what fewer channels gain in clips with every attribute right.

        Tokens and training compute are the same, so only the channels of a token and the codec's error differ. Only one
        VAE with so few tokens is a `ParameterError`.

        Returns:
            (the best VAE with fewer channels, the VAE with most, difference of shares over the same captions). The best
            is picked on these captions, which favours it where several are tried.
        """
        same = self.table[self.table["tokens"] == self.table["tokens"].min()].sort_values("channels")
        if len(same) < 2:
            raise ParameterError("the gain needs two VAEs of equal tokens and different channels")
        wide, fewer = same["VAE"].iloc[-1], same.iloc[:-1]
        best = fewer.loc[fewer["all"].idxmax(), "VAE"]
        return best, wide, intervals.difference(self.right[best], self.right[wide])

    def finding(self, tflop: float) -> str:
        """One sentence on channels, for a finding."""
        best, wide, gain = self.channels_gain()
        return (
            f"At equal tokens and {tflop:g} TFLOP of training, {best} against {wide}: {gain:+.2f} of clips with every "
            "attribute right."
        )


def one_each(
    codecs: Mapping[str, MobiVidVAE], lessons: Captioned, asked: Captioned, judge: Judge, real: Tensor,
    *, tflop: float, seed: int = 0,
) -> OneEach:  # fmt: skip
    """Train one denoiser on each VAE's latents with the same `tflop`, and score what it generates.

    Clips are (N, 3, T, H, W) uint8 with their labels: `lessons` to train on, `asked` whose captions are generated for.
    `real` are (N, F) judge features of other real clips; `seed` is of weights, draws and noise.
    """
    rows, right = [], {}
    clips, labels = to_float(asked[0]), asked[1]
    for name, codec in codecs.items():
        denoiser = train_denoiser(encoded(codec, *lessons), tflop=tflop, seed=seed)
        made = generated(denoiser, codec, encoded(codec, *asked), seed=seed)
        again = reconstruct(codec, clips)
        right[name] = accuracy(judge.predict(made), label_indices(labels))["all"].numpy().astype(float)
        rows.append(
            {
                "VAE": name,
                "channels": codec.config.latent_channels,
                "tokens": denoiser.tokens,
                "steps": denoiser.steps,
                "GFLOP per forward": denoiser.forward_gflop,
                "PSNR, dB": psnr(again, clips).mean().item(),
                "frechet of reconstructions": brief_scores(again, labels, judge, real)["frechet"],
                **brief_scores(made, labels, judge, real),
            }
        )
    return OneEach(pd.DataFrame(rows), right)
