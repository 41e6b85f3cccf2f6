"""Train the reference VAE like ours: same videos, same crops step by step, same steps, same loss.

Only the network differs: the optimiser and its rates, and the noise that disturbs latents in training, are ours too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobivid_core.data.pool import VideoPool
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.models.vae_reference import LTX_WIDTHS, LTXStyleVAE
from mobivid_core.train.loop import TrainResult, train
from mobivid_core.train.vae import LATENT_NOISE, codec_loss, codec_settings, disturbed


def train_ltx_style(
    # As for `train_vae`; with the same `batch`, `crop`, `frames` and `seed` it sees the same crops
    pool: VideoPool | Tensor,
    *,
    channels: int,  # latent channels
    steps: int,  # training steps
    pca: MobiVidVAE | None = None,  # start around this linear codec; None starts from random weights, as LTX-Video does
    widths: tuple[int, int, int, int] = LTX_WIDTHS,  # channels of the four stages
    batch: int = 8,  # crops a step
    crop: int = 64,  # side of a crop in pixels, a multiple of 32
    frames: int = 17,  # frames of a window
    seed: int = 0,
    progress: bool = True,
) -> tuple[LTXStyleVAE, TrainResult]:
    """Train an LTX-style VAE at 8x32x32: with averaged weights and normalised latents, and the training log."""
    pool = VideoPool.of(pool)
    torch.manual_seed(seed)
    vae = LTXStyleVAE(channels, widths, pca)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        clips = pool.draw(batch, frames, crop, generator)
        mean = vae.encode_raw(clips)
        decoded = vae.decode_raw(disturbed(mean, LATENT_NOISE, generator))
        return codec_loss(clips, mean, decoded)

    settings = codec_settings(steps, seed, muon_not=("conv_out",))
    result = train(vae, loss, settings, title="LTX-style VAE", progress=progress)
    generator = torch.Generator().manual_seed(seed)
    sample = pool.draw(min(len(pool), 64), frames, pool.side // 32 * 32, generator, augment=False)
    result.averaged.fit_statistics(sample)
    return result.averaged, result
