"""VMAF of clips, by the libvmaf inside the FFmpeg that the package imageio-ffmpeg brings along.

The paper's reviewers ask how far PSNR speaks for what is seen; VMAF is a measure fitted to viewers' scores (0 to 100).
It was fitted on high-definition film: below about 256 pixels compare rows of one table and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.data.video_io import FRAME_RATE, clip_to_frames
from mobivid_core.errors import MobiVidError, ParameterError

#: Both streams as 4:2:0 video, which is what VMAF's model was fitted on.
_GRAPH = "[0:v]format=yuv420p[d];[1:v]format=yuv420p[r];[d][r]libvmaf=log_fmt=json:log_path=vmaf.json"


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

    Raises:
        ParameterError: The shapes differ.
        MobiVidError: There is no FFmpeg with libvmaf (`vmaf_missing` says so beforehand), or it failed.
    """
    if clips.ndim != 5 or clips.shape != reference.shape:
        raise ParameterError(
            f"VMAF needs two batches of clips (B, 3, T, H, W) of one shape, got {tuple(clips.shape)} and "
            f"{tuple(reference.shape)}"
        )
    if missing := vmaf_missing():
        raise MobiVidError(missing)
    return torch.tensor([_score(clip, original) for clip, original in zip(clips, reference, strict=True)])


def _score(clip: Tensor, original: Tensor) -> float:
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
