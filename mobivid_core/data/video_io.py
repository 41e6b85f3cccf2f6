"""Reading and writing video files with PyAV: the only module that touches a codec.

Two layouts live here. *Frames* are `uint8 (T, H, W, 3)` RGB arrays, as files hold them; a *clip* is a
`float32 (3, T, H, W)` tensor in [-1, 1], as the models want it. `frames_to_clip` and `clip_to_frames`
go between them.

Simplified: sound and subtitles are ignored, pixels are taken as square, and colours follow FFmpeg's default matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.errors import VideoError

try:
    import av
    from av.filter import Graph
except ImportError:  # captioned clips need no video files; a wheel of PyAV is missing on few machines
    av = Graph = None

FRAME_RATE = 24
# Without these flags FFmpeg's scaler rounds down and blurs colour: a bias of one grey level.
_SCALER = "flags=area+accurate_rnd+full_chroma_int+full_chroma_inp"


def can_read_videos() -> bool:
    """Whether PyAV is installed: captioned clips need no video files, and some machines have no wheel of it."""
    return av is not None


def frames_to_clip(frames: np.ndarray) -> Tensor:
    """Turn frames `uint8 (T, H, W, 3)` into a clip `float32 (3, T, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float().div_(127.5).sub_(1.0)


def clip_to_frames(clip: Tensor) -> np.ndarray:
    """Turn a clip `(3, T, H, W)` in [-1, 1] into frames `uint8 (T, H, W, 3)`; values outside are clamped.

    Raises:
        VideoError: The tensor is not one clip.
    """
    if clip.ndim != 4 or clip.shape[0] != 3:
        raise VideoError(f"expected one clip of shape (3, T, H, W), got {tuple(clip.shape)}; index the batch first")
    pixels = (clip.detach().float().cpu().clamp(-1, 1) + 1) * 127.5
    return pixels.round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def read_video(
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,
    first_frame: int = 0,
    max_frames: int | None = None,
    max_fps: float | None = None,
) -> np.ndarray:
    """Read a video file whole or in part.

    Args:
        path: Any container and codec that FFmpeg decodes.
        size: Height and width to deliver: scaled to cover, then cropped centrally. None keeps the file's own.
        first_frame: Frames to skip at the start (after rate reduction).
        max_frames: Frames to deliver at most.
        max_fps: Drop frames down to this rate. A slower file keeps its rate: no frame is ever invented.

    Returns:
        Frames, uint8 (T, H, W, 3) RGB.

    Raises:
        VideoError: The file is missing, has no decodable video, or ends before `first_frame`.
    """
    frames = []
    stop = None if max_frames is None else first_frame + max_frames
    for index, frame in enumerate(iterate_frames(path, size=size, max_fps=max_fps)):
        if stop is not None and index >= stop:
            break
        if index >= first_frame:
            frames.append(frame)
    if not frames:
        raise VideoError(f"{Path(path).name}: no frame at or after frame {first_frame}")
    return np.stack(frames)


def iterate_frames(
    path: Path | str, *, size: tuple[int, int] | None = None, max_fps: float | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames of a file one by one, uint8 (H, W, 3), so that long files need little memory.

    Arguments and errors as `read_video`. A file that breaks off is an error, not a short video.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    if av is None:
        raise VideoError(f"{path.name}: reading videos needs PyAV (pip install av)")
    yielded = 0
    try:
        _check_gif_end(path)
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            rate = float(stream.average_rate or FRAME_RATE)
            graph, decoded, first, seconds = None, 0, None, 0.0
            for index, frame in enumerate(_whole_frames(container, stream, path)):
                decoded = index + 1
                seconds = frame.time if frame.time is not None else index / rate
                first = seconds if first is None else first
                # Half a source frame of slack, so that rounding of time stamps drops nothing at an equal rate.
                if max_fps is not None and (seconds + 0.5 / rate) * max_fps < yielded:
                    continue
                yielded += 1
                turns = round(frame.rotation / 90) % 4  # phones store upright video lying down
                graph = graph or _cover(stream, size, turns)
                graph.push(frame)
                yield np.ascontiguousarray(np.rot90(graph.pull().to_ndarray(), turns))
            # FFmpeg ends quietly where a download broke off; edit lists may hide a few declared frames.
            if decoded < 0.9 * stream.frames:
                raise VideoError(f"{path.name}: breaks off after {decoded} of {stream.frames} frames")
            # Matroska and WebM declare no number of frames, only how long they last.
            lasts, lasted = (container.duration or 0) / av.time_base, seconds - (first or 0.0) + 1 / rate
            if not stream.frames and decoded > 1 and lasted < 0.9 * lasts:
                raise VideoError(f"{path.name}: breaks off after {lasted:.1f} of {lasts:.1f} seconds")
    except (av.FFmpegError, ValueError, ArithmeticError) as error:  # a damaged header may declare a size or rate of 0
        raise VideoError(f"{path.name}: cannot be decoded ({error}). Is it a complete video file?") from error
    if not yielded:
        raise VideoError(f"{path.name}: holds no video frame")


def read_spans(path: Path | str, starts: list[int], frames: int, *, crop: int, size: int) -> list[np.ndarray]:
    """Read equally long spans of one file, decoding only near them.

    Args:
        path: A file at a constant rate whose first frame has time 0.
        starts: First frame of each span, ascending.
        frames: Length of each span.
        crop: Side of the central square taken from each frame, in pixels.
        size: Side that the square is scaled to (pixel-area average).

    Returns:
        One uint8 (frames, size, size, 3) array a span.

    Raises:
        VideoError: The file is missing or ends inside a span.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    wanted = sorted({start + k for start in starts for k in range(frames)})
    found: dict[int, np.ndarray] = {}
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            graph = _graph(stream, ("crop", f"{crop}:{crop}"), ("scale", f"{size}:{size}:{_SCALER}"))
            for index, frame in _frames_at(container, stream, path, wanted):
                graph.push(frame)
                found[index] = graph.pull().to_ndarray()
    except (av.FFmpegError, ValueError, ArithmeticError) as error:
        raise VideoError(f"{path.name}: cannot be decoded ({error}); fetch the file again") from error
    if len(found) < len(wanted):
        lost = next(index for index in wanted if index not in found)
        raise VideoError(f"{path.name}: expected a frame {lost}, but the file ends before it; fetch the file again")
    return [np.stack([found[start + k] for k in range(frames)]) for start in starts]


def write_video(
    path: Path | str,
    frames: np.ndarray | Tensor,
    *,
    fps: float = FRAME_RATE,
    lossless: bool = False,
    crf: int = 18,
    preset: str = "medium",
    key_frames: int = 250,
) -> Path:
    """Write frames (uint8 (T, H, W, 3)) or a clip (float (3, T, H, W)) to a file.

    Args:
        path: `.mp4` for H.264, `.mkv` for lossless FFV1.
        frames: What to write. H.264 needs even sides: an odd one repeats its last row or column.
        fps: Frames a second.
        lossless: FFV1 in RGB: reading the file gives the same bytes.
        crf: H.264 quality, 0 (lossless) to 51.
        preset: x264's effort.
        key_frames: Frames between key frames at most, where reading by seeking can start.

    Raises:
        VideoError: Not frames, or a file name that does not fit the codec.
    """
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


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise VideoError(f"{path.name}: holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(f"{path.name}: its codec is unknown here; convert the file to H.264, or fetch it again")
    stream.codec_context.thread_count = 1
    return stream


def _whole_frames(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[av.VideoFrame]:
    """Decode; FFmpeg makes a picture that was never filmed of what is left of a packet: that is an error here."""
    for packet in container.demux(stream):
        if packet.is_corrupt:
            seconds = float((packet.pts or 0) * packet.time_base)
            raise VideoError(f"{path.name}: breaks off or is damaged at {seconds:.1f} s; fetch the file again")
        yield from packet.decode()


def _check_gif_end(path: Path) -> None:
    """A GIF declares no length at all, so FFmpeg cannot miss what is cut off; but it ends with a semicolon."""
    with path.open("rb") as stream:
        if stream.read(4) != b"GIF8":
            return
        stream.seek(max(0, path.stat().st_size - 1024))
        if not stream.read().rstrip(b"\0").endswith(b";"):
            raise VideoError(f"{path.name}: breaks off, a whole GIF ends otherwise; fetch the file again")


def _graph(stream: av.VideoStream, *steps: tuple[str, str]) -> Graph:
    """Filters from a stream's frames to RGB pictures."""
    graph = Graph()
    nodes = [
        graph.add_buffer(template=stream, time_base=stream.time_base),
        *(graph.add(name, arguments) for name, arguments in steps),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for first, second in zip(nodes, nodes[1:], strict=False):
        first.link_to(second)
    graph.configure()
    return graph


def _cover(stream: av.VideoStream, size: tuple[int, int] | None, turns: int) -> Graph:
    """Scale to cover `size` (of the upright picture) and crop centrally; no scaling without a size."""
    if size is None:
        return _graph(stream, ("scale", _SCALER))
    height, width = size[::-1] if turns % 2 else size
    scale = max(height / stream.height, width / stream.width)
    tall, wide = max(height, round(stream.height * scale)), max(width, round(stream.width * scale))
    return _graph(stream, ("scale", f"{wide}:{tall}:{_SCALER}"), ("crop", f"{width}:{height}"))


def _frames_at(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path, wanted: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield `(index, frame)` for ascending frame indices, seeking over gaps longer than the key-frame distance."""
    per_frame = 1 / (stream.average_rate * stream.time_base)  # time-base ticks
    targets, position = iter(wanted), 0
    target = next(targets, None)
    while target is not None:
        if target - position > 2 * FRAME_RATE or target < position:
            container.seek(int(target * per_frame), stream=stream)
        for frame in _whole_frames(container, stream, path):
            position = round(frame.pts / per_frame)
            if position == target:
                yield position, frame
                previous, target = target, next(targets, None)
                if target is None:
                    return
                if target - previous > 2 * FRAME_RATE:
                    break
        else:
            return
