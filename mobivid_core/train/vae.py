"""Trains a video VAE on film shots and captioned clips: PCA first, then the convolutional nets around it.

The loss is the squared error and, so that edges stay, a robust error of the image gradients (Charbonnier's); latents
are disturbed by noise. What makes pictures crisp beyond that: `train.sharpen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.data.film import film_clips
from mobivid_core.data.pool import VideoPool, captioned_clips, to_bytes
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import Profile
from mobivid_core.train.loop import TrainResult, TrainSettings, train

#: Clips that the PCA and the latents' statistics are fitted on.
_FIT_CLIPS = 384
#: Each clip's latents are disturbed by noise of a standard deviation drawn from [0, this], in units of normalised
#: latents, as a diffusion model errs: generated latents are never exact, and the decoder must not break on them.
#: In units of raw channels the strongest ones, brightness first, would take two thirds of the damage (32 channels: a
#: squared error of .0040 instead of .0012 beside the codec's own of .0147).
LATENT_NOISE = 0.25
#: Weight of the error of image gradients; a first step of training is about .03 of it against .006 of squared error.
EDGE_WEIGHT = 0.02
#: Where the absolute value of the gradients' error turns into a square.
_CHARBONNIER = 0.01


def clip_pool(profile: Profile, *, film: int = 384, captioned: int = 512) -> Tensor:
    """A small fixed set of training clips of both kinds, (N, 3, T, H, W) uint8; smoke takes a handful of each."""
    if not profile.meaningful:
        film, captioned = 6, 10
    size = {"frames": profile.frames, "size": profile.size}
    shots = film_clips("train", limit=film, **size).clips
    return torch.cat([*map(to_bytes, shots.split(16)), captioned_clips(captioned, **size)])


def train_vae(
    # Videos; clips (N, 3, T, H, W) uint8 or a sequence of (3, T, H, W) will do
    pool: VideoPool | Tensor | Sequence[Tensor],
    *,
    ratio: tuple[int, int, int],  # compression time x height x width
    channels: int,  # latent channels
    width: int,  # width of the decoder's net; 0 with `steps` 0 gives the PCA codec
    steps: int,  # training steps
    folder: Path | None = None,  # where to keep the training state; None keeps none
    batch: int = 8,  # crops a step
    crop: int = 96,  # side of a training crop in pixels; all layers are local, so whole frames are not needed
    frames: int = 17,  # frames of a training window
    seed: int = 0,
    bf16: bool = False,  # compute in bfloat16 (weights stay float32): see `precision` for where that is faster
    progress: bool = True,
    encoder_width: int = 0,  # width of the encoder's net; 0 leaves the code linear
    # Leave the linear path as PCA found it: latents are then known before the decoder is trained
    freeze_linear: bool = False,
    device: torch.device | str = "cpu",  # where to train; the pool is moved there
    seconds: float | None = None,  # training time, as another end beside `steps`: a rented GPU's
) -> tuple[MobiVidVAE, TrainResult]:
    """Train one VAE: with averaged weights and normalisation statistics, on the device, and the training log."""
    pool = VideoPool.of(pool).to(device)
    torch.manual_seed(seed)
    vae = MobiVidVAE(tuple(ratio), channels, width, encoder_width=encoder_width).to(device)
    fitted = _FIT_CLIPS if steps >= 1000 else min(len(pool), _FIT_CLIPS)
    side = pool.side // ratio[1] * ratio[1]

    def sample() -> Tensor:
        """The clips to fit on; drawn again when needed, since they are too large to keep while training."""
        return pool.draw(fitted, frames, side, torch.Generator().manual_seed(seed), augment=False)

    clips = sample()
    vae.fit_linear(clips)
    if steps:
        vae.fit_statistics(clips)  # the noise's units while it trains
    del clips
    for part in (vae.linear_encoder, vae.linear_decoder):
        part.requires_grad_(not freeze_linear)
    crop = min(crop, side) // ratio[1] * ratio[1]

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        clips = pool.draw(batch, frames, crop, generator)
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=bf16):
            z = vae.encode(clips).latent_dist.mean.float()
            decoded = vae.decode(disturbed(z, LATENT_NOISE * vae.latents_std, generator)).sample.float()
        return codec_loss(clips, z, decoded)

    settings = codec_settings(steps, seed, muon_not=("decoder_net.out.",), seconds=seconds)
    title = f"VAE {ratio[0]}x{ratio[1]}x{ratio[2]} z{channels}"
    result = train(vae, loss, settings, folder, title=title, progress=progress)
    averaged = result.averaged.requires_grad_(True)
    averaged.fit_statistics(sample())
    return averaged, result


def codec_loss(clips: Tensor, z: Tensor, decoded: Tensor) -> dict[str, Tensor]:
    """Loss of a codec's reconstruction of clips (B, 3, T, H, W) through raw latents z, with terms for the log."""
    wrong = decoded - clips
    error = wrong.square().mean()
    # Charbonnier's error of the differences between neighbouring pixels
    across, down = ((wrong.diff(dim=axis).square() + _CHARBONNIER**2).sqrt().mean() for axis in (-1, -2))
    edges = (across + down) / 2 - _CHARBONNIER
    # raw channels start at unit mean square: this keeps them there, whatever a learnt code would like
    bound = 1e-3 * z.square().mean((0, 2, 3, 4)).clamp(min=1e-6).log().square().mean()
    loss = error + EDGE_WEIGHT * edges + bound
    return {"loss": loss, "psnr_db": 10 * torch.log10(4 / error.detach()), "edges": edges}


def codec_settings(steps: int, seed: int, **other: object) -> TrainSettings:
    """Optimisers and rates of a codec's training: Muon trains the nets' matrices, and the linear path learns slowly."""
    return TrainSettings(
        steps, learning_rate=1e-3, warmup=min(50, steps // 10 + 1), ema=0.998 if steps >= 1000 else 0.98, seed=seed,
        slow=("linear_encoder", "linear_decoder"), weight_decay=0.0, clip_norm=0.3, muon=4e-3, **other,
    )  # fmt: skip


def disturbed(z: Tensor, most: Tensor | float, generator: torch.Generator) -> Tensor:
    """Raw latents (B, C, t, h, w) with noise of a standard deviation drawn for each clip from [0, `most`].

    In units of each channel's root mean square over the batch, through which gradients flow: a learnt code cannot
    escape the noise by growing. `most` is one for all channels, or (C,).
    """
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    spread = torch.rand(len(z), 1, 1, 1, 1, generator=generator).to(z.device)
    size = most * (z.square().mean((0, 2, 3, 4)) + 1e-8).sqrt()
    return z + spread * noise * size.view(1, -1, 1, 1, 1)
