"""Trains a video VAE on film shots and captioned clips: PCA first, then the convolutional nets around it.

`python -m mobivid_core.training.vae --profile scratch` makes the shipped one again; interrupted, it resumes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.data.film import film_clips
from mobivid_core.data.render import render_clips
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import Profile
from mobivid_core.training.loop import TrainResult, TrainSettings, train

#: Weight of the KL term per latent value: keeps latents bounded, hardly costs reconstruction.
_KL = 1e-6


def clip_pool(profile: Profile, *, film: int = 384, captioned: int = 512) -> Tensor:
    """Training clips of both kinds, (N, 3, T, H, W) uint8, N at most `film + captioned`.

    Smoke takes a handful of each.
    """
    if not profile.meaningful:
        film, captioned = 6, 10
    shots = film_clips("train", frames=profile.frames, size=profile.size, limit=film).clips
    drawn = [
        to_bytes(
            render_clips("train", range(i, min(i + 16, captioned)), frames=profile.frames, size=profile.size).clips
        )
        for i in range(0, captioned, 16)
    ]
    return torch.cat([*map(to_bytes, shots.split(16)), *drawn])


def to_bytes(clips: Tensor) -> Tensor:
    """[-1, 1] float to uint8."""
    return ((clips + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(clips: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return clips.float() / 127.5 - 1


def train_vae(
    pool: Tensor,
    *,
    ratio: tuple[int, int, int],
    channels: int,
    width: int,
    steps: int,
    folder: Path | None = None,
    batch: int = 8,
    crop: int = 64,
    seed: int = 0,
    learning_rate: float = 1e-3,
    progress: bool = True,
) -> tuple[MobiVidVAE, TrainResult]:
    """Train one VAE.

    Args:
        pool: Clips (N, 3, T, H, W) uint8.
        ratio: Compression time x height x width.
        channels: Latent channels.
        width: Width of the convolutional nets; 0 with `steps` 0 gives the PCA codec.
        steps: Training steps.
        folder: Where to keep the training state; None keeps none.
        batch: Crops a step.
        crop: Side of a training crop in pixels; all layers are local, so whole frames are not needed.
        seed: Seed.
        learning_rate: Peak rate of the nets; the linear path learns 30 times slower.
        progress: Show a progress bar.

    Returns:
        The VAE with averaged weights and normalisation statistics, and the training log.
    """
    torch.manual_seed(seed)
    vae = MobiVidVAE(ratio=tuple(ratio), latent_channels=channels, width=width)
    picked = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:256]]
    vae.fit_linear(to_float(picked))
    crop = min(crop, pool.shape[-1])

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        clips = _draw_crops(pool, batch, crop, generator)
        posterior = vae.encode(clips).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        error = (vae.decode(z).sample - clips).square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return {"loss": error + _KL * kl, "psnr_db": 10 * torch.log10(4 / error.detach()), "kl": kl.detach()}

    settings = TrainSettings(
        steps,
        learning_rate=learning_rate,
        warmup=50,
        ema=0.995,
        seed=seed,
        slow=("linear_encoder", "linear_decoder"),
        weight_decay=0.0,
    )
    title = f"VAE {ratio[0]}x{ratio[1]}x{ratio[2]} z{channels}"
    result = train(vae, loss, settings, folder, title=title, progress=progress)
    averaged = result.averaged
    averaged.fit_statistics(to_float(picked))
    return averaged, result


def _draw_crops(pool: Tensor, batch: int, crop: int, generator: torch.Generator) -> Tensor:
    size = pool.shape[-1]
    which = torch.randint(len(pool), (batch,), generator=generator).tolist()
    corners = torch.randint(size - crop + 1, (batch, 2), generator=generator).tolist()
    flips = torch.rand(batch, generator=generator) < 0.5
    crops = [
        pool[n, :, :, top : top + crop, left : left + crop] for n, (top, left) in zip(which, corners, strict=False)
    ]
    clips = torch.stack([c.flip(-1) if f else c for c, f in zip(crops, flips, strict=False)])
    return to_float(clips)


def main() -> None:
    """Command line: train the main VAE of a profile and publish it."""
    import argparse

    from mobivid_core.artifacts import publish, save_model
    from mobivid_core.paths import runs_dir
    from mobivid_core.profiles import get_profile

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--profile", default="scratch")
    parser.add_argument("--steps", type=int, help="instead of the profile's")
    arguments = parser.parse_args()
    profile = get_profile(arguments.profile)
    vae, _ = train_vae(
        clip_pool(profile),
        ratio=profile.vae_ratio,
        channels=profile.vae_channels,
        width=profile.vae_width,
        steps=arguments.steps or profile.vae_steps,
        folder=runs_dir(profile.name) / "training" / "vae",
    )
    with publish("vae", profile.name) as folder:
        save_model(vae, folder)


if __name__ == "__main__":
    main()
