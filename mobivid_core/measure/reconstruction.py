"""What a VAE loses: per clip, per region, per speed of motion; and what in its latents depends on what.

Paper: the section on the highly compressed VAE; reviewers asked for static and moving content apart (R1.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.metrics import ms_ssim, psnr, ssim, temporal_difference_error
from mobivid_core.measure.vmaf import vmaf, vmaf_missing
from mobivid_core.models.vae import MobiVidVAE


@torch.no_grad()
def reconstruct(vae: MobiVidVAE, clips: Tensor, batch: int = 4) -> Tensor:
    """Clips (N, 3, T, H, W) through a codec and back, clamped to [-1, 1].

    Args:
        vae: Anything with `encode_latents` and `decode_latents`.
        clips: (N, 3, T, H, W) in [-1, 1].
        batch: Clips at once.
    """
    vae.eval()
    return torch.cat([vae.decode_latents(vae.encode_latents(part)) for part in clips.split(batch)])


def measure(reconstructions: Tensor, clips: Tensor, *, seen: bool = False) -> pd.DataFrame:
    """Measures of each clip, one row a clip.

    Args:
        reconstructions: (N, 3, T, H, W) in [-1, 1].
        clips: The originals, same shape.
        seen: Also MS-SSIM and VMAF, measures closer to what is seen and slower; VMAF is left out where FFmpeg lacks it.

    Returns:
        `psnr_db`, `ssim`, and `motion_error`, the error of frame differences on the 0 to 2 scale; with `seen` also
        `ms_ssim` and `vmaf`.
    """
    values = {
        "psnr_db": psnr(reconstructions, clips),
        "ssim": ssim(reconstructions, clips),
        "motion_error": temporal_difference_error(reconstructions, clips),
    }
    if seen:
        values["ms_ssim"] = ms_ssim(reconstructions, clips)
        if not vmaf_missing():
            values["vmaf"] = vmaf(reconstructions, clips)
    return pd.DataFrame({name: own.numpy() for name, own in values.items()})


def paired_gain(ours: pd.DataFrame, theirs: pd.DataFrame, column: str = "psnr_db") -> tuple[float, float, float]:
    """Mean difference, clip by clip, with its 95 % bootstrap interval: clips differ more than codecs do.

    Args:
        ours: From `measure`.
        theirs: Of the same clips in the same order.
        column: The measure.

    Raises:
        ParameterError: Other numbers of clips.
    """
    if len(ours) != len(theirs):
        raise ParameterError(f"a paired difference needs the same clips, got {len(ours)} and {len(theirs)}")
    return intervals.difference(ours[column].to_numpy(), theirs[column].to_numpy())


def summarise(
    measured: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("psnr_db",), means: Sequence[str] = ()
) -> pd.DataFrame:
    """Means with 95 % bootstrap intervals over clips.

    Args:
        measured: Name of a row -> per-clip measures.
        columns: Measures to summarise.
        means: Measures of which the mean is enough; those that were not measured are left out.

    Returns:
        One row a name: `clips`, and for each measure its mean, `_low` and `_high`.
    """
    rows = []
    for name, frame in measured.items():
        row: dict[str, object] = {"name": name, "clips": len(frame)}
        for column in columns:
            row[column], row[f"{column}_low"], row[f"{column}_high"] = intervals.mean(frame[column].to_numpy())
        row |= {column: frame[column].mean() for column in means if column in frame}
        rows.append(row)
    return pd.DataFrame(rows)


def equal_channels(ratio: tuple[int, int, int], like: tuple[int, int, int] = (8, 32, 32), channels: int = 64) -> int:
    """Latent channels that give `ratio` as many latent floats per pixel as `channels` at ratio `like`; at least 1.

    The first frame is coded alone, so short clips take somewhat more floats at a coarser time ratio; tables give both.
    """
    volume = ratio[0] * ratio[1] * ratio[2]
    return max(1, round(channels * volume / (like[0] * like[1] * like[2])))


def masked_psnr(reconstructions: Tensor, clips: Tensor, masks: Tensor) -> Tensor:
    """PSNR over the masked pixels of each clip.

    Args:
        reconstructions: (N, 3, T, H, W) in [-1, 1].
        clips: Same shape.
        masks: (N, T, H, W) bool, True where pixels count.

    Returns:
        (N,) in dB; NaN where a mask is empty.
    """
    error = (reconstructions - clips).square().mean(1).double()
    weight = masks.double()
    return (10 * torch.log10(4 * weight.sum((1, 2, 3)) / (error * weight).sum((1, 2, 3)))).float()


def motion_amount(clips: Tensor) -> Tensor:
    """Mean absolute change from frame to frame, (N,), on the 0 to 2 scale: 0 is a still."""
    return clips.diff(dim=2).abs().mean((1, 2, 3, 4))


def at_speed(clips: Tensor, speed: int, frames: int = 17) -> Tensor:
    """The same moment at another speed: every `speed`-th frame around the middle; 0 repeats the middle frame.

    Content is held fixed and only motion changes: a controlled experiment that different shots cannot give.

    Args:
        clips: (N, 3, T, H, W) with T at least `1 + speed * (frames - 1)`.
        speed: 0, 1, 2, ...
        frames: Frames of the result.

    Raises:
        ParameterError: The clips are too short for that speed.
    """
    length = clips.shape[2]
    needed = 1 + speed * (frames - 1)
    if speed < 0 or length < needed:
        raise ParameterError(f"speed {speed} needs clips of {needed} frames, got {length}")
    middle = length // 2
    steps = speed * (torch.arange(frames) - frames // 2)
    return clips[:, :, middle + steps]


def by_speeds(
    vae: MobiVidVAE, clips: Tensor, frames: int, speeds: Sequence[int] = (0, 1, 2, 4)
) -> dict[str, pd.DataFrame]:
    """Reconstruction of the same moments at several speeds.

    Args:
        vae: The codec.
        clips: Long clips (N, 3, L, H, W): see `at_speed`.
        frames: Frames of the clips that are coded.
        speeds: Playback speeds.

    Returns:
        {"0x": one row a clip}: the columns of `measure`, and change_per_frame, the clip's amount of motion.
    """
    found = {}
    for speed in speeds:
        played = at_speed(clips, speed, frames)
        measured = measure(reconstruct(vae, played), played)
        found[f"{speed}x"] = measured.assign(change_per_frame=motion_amount(played).numpy())
    return found


@torch.no_grad()
def encoder_response(vae: MobiVidVAE, clip: Tensor, amount: float = 0.5) -> Tensor:
    """How much each latent step changes when one frame changes: (T, t), row f for a change of frame f.

    Args:
        clip: One clip, (1, 3, T, H, W).
        amount: Brightness added to the frame.
    """
    base = vae.encode_latents(clip)
    rows = []
    for frame in range(clip.shape[2]):
        changed = clip.clone()
        changed[:, :, frame] += amount
        rows.append((vae.encode_latents(changed) - base).abs().mean((0, 1, 3, 4)))
    return torch.stack(rows)


@torch.no_grad()
def decoder_response(vae: MobiVidVAE, latents: Tensor, amount: float = 0.5) -> Tensor:
    """How much each frame changes when one latent step changes: (t, T), row s for a change of step s."""
    base = vae.decode_latents(latents)
    rows = []
    for step in range(latents.shape[2]):
        changed = latents.clone()
        changed[:, :, step] += amount
        rows.append((vae.decode_latents(changed) - base).abs().mean((0, 1, 3, 4)))
    return torch.stack(rows)
