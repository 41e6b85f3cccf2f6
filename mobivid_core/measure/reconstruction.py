"""What a VAE loses: PSNR, SSIM and VMAF per clip, region and speed of motion; what in its latents depends on what.

Paper: the section on the highly compressed VAE; reviewers asked for static and moving content apart (R1.1), and how far
PSNR speaks for what is seen. VMAF, by the libvmaf inside the FFmpeg that the package imageio-ffmpeg brings along, is
fitted to viewers' scores (0 to 100) of high-definition film: below about 256 pixels compare rows of one table only.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mobivid_core.data.video_io import FRAME_RATE, clip_to_frames
from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.measure import intervals
from mobivid_core.models.vae import MobiVidVAE

#: Both streams as 4:2:0 video, which is what VMAF's model was fitted on.
_GRAPH = "[0:v]format=yuv420p[d];[1:v]format=yuv420p[r];[d][r]libvmaf=log_fmt=json:log_path=vmaf.json"


def psnr(clips: Tensor, reference: Tensor) -> Tensor:
    """PSNR (B,) in dB of clips (B, 3, T, H, W) in [-1, 1] over all pixels and frames; infinite for identical ones."""
    _same_shape(clips, reference)
    error = (clips.double() - reference.double()).square().mean((1, 2, 3, 4))
    return (10 * torch.log10(4 / error)).float()  # peak-to-peak of [-1, 1] is 2


def ssim(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) structural similarity: the mean over frames of pytorch-msssim's SSIM (11-pixel window)."""
    return _per_frame("ssim", clips, reference)


def ms_ssim(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) multi-scale SSIM, mean over frames.

    The five scales need more than 160 pixels; below that the window shrinks to what four halvings of the
    shorter side allow (7 pixels at 128, 3 at 64), so values compare only at one size.
    """
    # pytorch-msssim wants the side above 16 (window - 1)
    return _per_frame("ms_ssim", clips, reference, win_size=min(11, (min(clips.shape[-2:]) - 1) // 16 | 1))


@cache
def vmaf_missing() -> str:
    """Why VMAF cannot be measured here, in one line; empty where it can."""
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        return f"VMAF is left out: no FFmpeg from imageio-ffmpeg ({error}); `pip install imageio-ffmpeg` brings one"
    listed = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    if "libvmaf" not in listed.stdout:
        return f"VMAF is left out: {Path(program).name} was built without libvmaf; imageio-ffmpeg's own build has it"
    return ""


def vmaf(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) VMAF of clips (B, 3, T, H, W) in [-1, 1] (model vmaf_v0.6.1), mean over frames, near 100 for identical ones.

    A `MobiVidError` where there is no FFmpeg with libvmaf (`vmaf_missing` says so beforehand), or it failed.
    """
    _same_shape(clips, reference)
    if missing := vmaf_missing():
        raise MobiVidError(missing)
    return torch.tensor([_vmaf_of_one(clip, original) for clip, original in zip(clips, reference, strict=True)])


def _vmaf_of_one(clip: Tensor, original: Tensor) -> float:
    import imageio_ffmpeg

    height, width = clip.shape[-2:]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FRAME_RATE)]
    with tempfile.TemporaryDirectory() as folder:
        for name, own in (("clip.rgb", clip), ("original.rgb", original)):
            (Path(folder) / name).write_bytes(clip_to_frames(own).tobytes())
        inputs = [*raw, "-i", "clip.rgb", *raw, "-i", "original.rgb"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, "-lavfi", _GRAPH, "-f", "null", "-"]
        # The folder is the working directory: a path inside the filter graph would need escaping.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        log = Path(folder) / "vmaf.json"
        if done.returncode or not log.is_file():
            raise MobiVidError(f"FFmpeg could not measure VMAF of a {width}x{height} clip: {done.stderr.strip()}")
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


def temporal_difference_error(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) mean absolute error of frame differences on the 0 to 2 scale; 0 for one frame."""
    if clips.shape[2] < 2:
        return clips.new_zeros(len(clips))
    return (clips.diff(dim=2) - reference.diff(dim=2)).abs().mean((1, 2, 3, 4))


@torch.no_grad()
def reconstruct(vae: MobiVidVAE, clips: Tensor, batch: int = 4) -> Tensor:
    """Clips (N, 3, T, H, W) through a codec and back, clamped to [-1, 1], `batch` at once."""
    vae.eval()
    return torch.cat([vae.decode_latents(vae.encode_latents(part)) for part in clips.split(batch)])


def measure(reconstructions: Tensor, clips: Tensor, *, seen: bool = False) -> pd.DataFrame:
    """Measures of reconstructions of clips (N, 3, T, H, W), one row a clip: `psnr_db`, `ssim` and `motion_error`.

    With `seen` also the slower `ms_ssim` and `vmaf`, closer to what is seen (no VMAF where FFmpeg lacks it).
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


def paired_gain(ours: pd.DataFrame, theirs: pd.DataFrame) -> intervals.Interval:
    """Mean difference of two codecs' PSNR on the same clips: clips differ more than codecs do."""
    return intervals.difference(ours["psnr_db"].to_numpy(), theirs["psnr_db"].to_numpy())


def summarise(
    measured: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("psnr_db",), means: Sequence[str] = ()
) -> pd.DataFrame:
    """A row a name: `clips`, and of each of `columns` the mean, `_low` and `_high` over clips.

    Of `means` the mean is enough; those that were not measured are left out.
    """
    rows = []
    for name, frame in measured.items():
        row: dict[str, object] = {"name": name, "clips": len(frame)}
        for column in columns:
            row |= intervals.named(column, intervals.mean(frame[column].to_numpy()))
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
    """(N,) PSNR in dB over pixels where masks (N, T, H, W) are True; NaN where a mask is empty."""
    error = (reconstructions - clips).square().mean(1).double()
    weight = masks.double()
    return (10 * torch.log10(4 * weight.sum((1, 2, 3)) / (error * weight).sum((1, 2, 3)))).float()


def motion_amount(clips: Tensor) -> Tensor:
    """Mean absolute change from frame to frame, (N,), on the 0 to 2 scale: 0 is a still."""
    return clips.diff(dim=2).abs().mean((1, 2, 3, 4))


def at_speed(clips: Tensor, speed: int, frames: int = 17) -> Tensor:
    """The same moment at another speed: every `speed`-th frame around the middle; 0 repeats the middle frame.

    Content is held fixed and only motion changes, which different shots cannot give. Clips (N, 3, T, H, W) with less
    than 1 + speed * (frames - 1) frames are a `ParameterError`.
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
    """{"0x": `measure` and change_per_frame, the amount of motion} of the same moments of long clips at each speed."""
    found = {}
    for speed in speeds:
        played = at_speed(clips, speed, frames)
        measured = measure(reconstruct(vae, played), played)
        found[f"{speed}x"] = measured.assign(change_per_frame=motion_amount(played).numpy())
    return found


def encoder_response(vae: MobiVidVAE, clip: Tensor) -> Tensor:
    """How much each latent step of a clip (1, 3, T, H, W) changes when a frame does: (T, t), row f for frame f."""
    return _response(vae.encode_latents, clip)


def decoder_response(vae: MobiVidVAE, latents: Tensor) -> Tensor:
    """How much each frame changes when one latent step changes: (t, T), row s for a change of step s."""
    return _response(vae.decode_latents, latents)


@torch.no_grad()
def _response(code: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Mean change of each step of the result when one step of x (1, C, T, H, W) is raised by a half."""
    base, rows = code(x), []
    for step in range(x.shape[2]):
        changed = x.clone()
        changed[:, :, step] += 0.5
        rows.append((code(changed) - base).abs().mean((0, 1, 3, 4)))
    return torch.stack(rows)


def _per_frame(name: str, clips: Tensor, reference: Tensor, **settings: int) -> Tensor:
    """(B,) a measure of pytorch-msssim, mean over frames."""
    import pytorch_msssim

    b, c, t, h, w = clips.shape
    frames, target = (x.transpose(1, 2).reshape(b * t, c, h, w) / 2 + 0.5 for x in (clips, reference))
    values = getattr(pytorch_msssim, name)(frames, target, data_range=1.0, size_average=False, **settings)
    return values.reshape(b, t).mean(1)


def _same_shape(clips: Tensor, reference: Tensor) -> None:
    if clips.ndim != 5 or clips.shape != reference.shape:
        raise ParameterError(
            f"expected two batches of clips (B, 3, T, H, W) of one shape, got {tuple(clips.shape)} and "
            f"{tuple(reference.shape)}"
        )
