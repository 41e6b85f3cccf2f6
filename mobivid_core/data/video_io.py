"""Read and write video files with PyAV.

Two layouts live here. *Frames* are `uint8 (T, H, W, 3)` RGB arrays, as files hold them; a *clip* is a
`float32 (3, T, H, W)` tensor in [-1, 1], as the models want it. Simplified: sound and subtitles are ignored, and what
lies below transparent pixels is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.video_filters import SCALER, linked, pictures
from mobivid_core.data.video_source import av, decoding, opened, survey, whole_packets
from mobivid_core.errors import VideoError

FRAME_RATE = 24


def frames_to_clip(frames: np.ndarray) -> Tensor:
    """Turn frames `uint8 (T, H, W, 3)` into a clip `float32 (3, T, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float().div_(127.5).sub_(1.0)


def clip_to_frames(clip: Tensor) -> np.ndarray:
    """Turn one clip `(3, T, H, W)` in [-1, 1] into frames `uint8 (T, H, W, 3)`; values outside are clamped."""
    if clip.ndim != 4 or clip.shape[0] != 3:
        raise VideoError(f"expected one clip of shape (3, T, H, W), got {tuple(clip.shape)}; index the batch first")
    pixels = (clip.detach().float().cpu().clamp(-1, 1) + 1) * 127.5
    return pixels.round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def read_video(path: Path | str, *, size: tuple[int, int] | None = None, max_fps: float | None = None) -> np.ndarray:
    """All frames of a file, uint8 (T, H, W, 3); arguments and errors as `iterate_frames`."""
    return np.stack(list(iterate_frames(path, size=size, max_fps=max_fps)))


def iterate_frames(
    path: Path | str, *, size: tuple[int, int] | None = None, max_fps: float | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames of a file one by one, uint8 (H, W, 3) RGB, so that long files need little memory.

    Any container and codec that FFmpeg decodes. A file that breaks off is an error, not a short video.

    Args:
        path: The file.
        size: Height and width to deliver: scaled to cover, then cropped centrally. None keeps the file's own.
        max_fps: Drop frames down to this rate, by time stamps from the first frame on. A slower file keeps its rate:
            no frame is invented; in one of variable rate, a picture is held for as long as the file holds it.

    Raises:
        VideoError: The file is missing or damaged, or has no decodable video.
    """
    path = Path(path)
    yielded = 0
    with decoding(path):
        found = survey(path)
        with opened(path) as (container, stream):
            frames = whole_packets(container, stream, path)
            rate, aspect = found.reduced_rate(max_fps), stream.sample_aspect_ratio
            for picture in pictures(frames, size=size, pixel_aspect=aspect, rate=rate, frame_s=found.frame_s):
                yielded += 1
                yield np.ascontiguousarray(picture)
    if not yielded:
        raise VideoError(f"{path.name}: holds no video frame")


def read_spans(path: Path | str, starts: list[int], frames: int, *, crop: int, size: int) -> list[np.ndarray]:
    """Read spans of frames of one file: uint8 (frames, size, size, 3) each.

    The central square of `crop` pixels is scaled to `size` (area average). VideoError where the file ends earlier.
    """
    path, graph = Path(path), None
    wanted = {start + k for start in starts for k in range(frames)}
    found: dict[int, np.ndarray] = {}
    with decoding(path, "fetch the file again"), opened(path) as (container, stream):
        for index, frame in enumerate(whole_packets(container, stream, path)):
            if index in wanted:
                graph = graph or linked(frame, ("crop", f"{crop}:{crop}"), ("scale", f"{size}:{size}:{SCALER}"))
                graph.push(frame)
                found[index] = graph.pull().to_ndarray()
            if len(found) == len(wanted):
                break
    if lost := min(wanted - found.keys(), default=None):
        raise VideoError(f"{path.name}: expected a frame {lost}, but the file ends before it; fetch the file again")
    return [np.stack([found[start + k] for k in range(frames)]) for start in starts]


def write_video(
    path: Path | str,  # `.mp4` for H.264, `.mkv` for lossless FFV1
    frames: np.ndarray | Tensor,  # what to write. H.264 needs even sides: an odd one repeats its last row or column
    *,
    fps: float = FRAME_RATE,  # frames a second
    lossless: bool = False,  # FFV1 in RGB: reading the file gives the same bytes
    crf: int = 18,  # H.264 quality, 0 (lossless) to 51
    preset: str = "medium",  # x264's effort
    key_frames: int = 250,  # frames between key frames at most, where reading by seeking can start
) -> Path:
    """Write frames (uint8 (T, H, W, 3)) or a clip (float (3, T, H, W)); VideoError for others, or another suffix."""
    path = Path(path)
    pixels = clip_to_frames(frames) if isinstance(frames, Tensor) else frames
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
        raise VideoError(f"expected frames uint8 (T, H, W, 3) with T > 0, got {pixels.dtype} {pixels.shape}")
    if lossless and path.suffix != ".mkv":
        raise VideoError(f"lossless video is FFV1 in Matroska: name the file .mkv, not {path.name}")
    if not lossless:
        height, width = pixels.shape[1:3]
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # bitexact and one thread: equal clips give equal files, so that committed figures do not churn.
    muxing = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if path.suffix == ".mp4" else {})
    with av.open(str(path), "w", options=muxing) as container:
        rate = Fraction(fps).limit_denominator(1001)
        h264 = {"crf": str(crf), "preset": preset, "x264-params": f"threads=1:open-gop=0:keyint={key_frames}"}
        options = {} if lossless else h264
        stream = container.add_stream("ffv1" if lossless else "libx264", rate=rate, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "bgr0" if lossless else "yuv420p"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for index, picture in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
