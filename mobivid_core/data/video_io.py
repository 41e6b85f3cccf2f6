"""Read and write video files with PyAV.

Two layouts live here. *Frames* are `uint8 (T, H, W, 3)` RGB arrays, as files hold them; a *clip* is a
`float32 (3, T, H, W)` tensor in [-1, 1], as the models want it. Simplified: sound and subtitles are ignored, and what
lies below transparent pixels is shown.

FFmpeg's filters make pictures upright and their pixels square, in this order: deinterlace, reduce the rate, bring HDR
to the range of a plain screen, scale and crop, turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.video_source import LONGEST_HOLD, av, decoding, opened, survey, whole_packets
from mobivid_core.errors import VideoError

FRAME_RATE = 24
# Without these flags FFmpeg's scaler rounds down and blurs colour: a bias of one grey level.
_SCALER = "flags=area+accurate_rnd+full_chroma_int+full_chroma_inp"
#: Transfer functions of HDR: PQ (SMPTE 2084) and HLG (ARIB STD-B67), by FFmpeg's numbers.
_HDR = frozenset({16, 18})
_TONE_MAP = "out_transfer=bt709:out_primaries=bt709:intent=perceptual"
#: Pixels of a scaled picture at most: a strip of 2x60000 pixels would be scaled to gigabytes before it is cropped.
_MOST_PIXELS = 2**27

Step = tuple[str, str]


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
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,  # height and width: scaled to cover, cropped centrally; None: the file's own
    # Drop frames down to this rate, by time stamps. A slower file keeps its rate: no frame is invented; in one of
    # variable rate, a picture is held for as long as the file holds it
    max_fps: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of a file one by one, uint8 (H, W, 3) RGB, so that long files need little memory.

    A VideoError where the file is missing or damaged, breaks off, or has no video that FFmpeg decodes.
    """
    path = Path(path)
    yielded = 0
    with decoding(path):
        frame_s, rate = survey(path, max_fps)
        with opened(path) as (container, stream):
            frames, aspect = whole_packets(container, stream, path), stream.sample_aspect_ratio
            for picture in _upright(frames, size=size, pixel_aspect=aspect, rate=rate, frame_s=frame_s):
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
                graph = graph or _linked(frame, ("crop", f"{crop}:{crop}"), ("scale", f"{size}:{size}:{_SCALER}"))
                graph.push(frame)
                found[index] = graph.pull().to_ndarray()
            if len(found) == len(wanted):
                break
    if lost := wanted - found.keys():
        says = f"expected a frame {min(lost)}, but the file ends before it"
        raise VideoError(f"{path.name}: {says}; fetch the file again")
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


def _linked(frame: av.VideoFrame, *steps: Step) -> av.filter.Graph:
    """A graph of filters from frames like this one to RGB pictures."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    filters = [graph.add(name, arguments) for name, arguments in steps]
    last = [graph.add("format", "rgb24"), graph.add("buffersink")]
    graph.link_nodes(source, *filters, *last).configure()
    return graph


def _upright(
    frames: Iterable[av.VideoFrame],
    *,
    # Height and width: scaled to cover, then cropped centrally. None keeps the first frame's own
    size: tuple[int, int] | None,
    pixel_aspect: Fraction | None,  # width of a stored pixel by its height
    rate: float | None,  # pictures a second, on a grid that begins at the first frame; None passes every frame
    frame_s: float,  # seconds between frames, for those without a time stamp
) -> Iterator[np.ndarray]:
    """Turn frames, in the order they are shown, into pictures, uint8 (H, W, 3)."""
    graph, built_for, interlaced = None, None, False
    for frame in _rising(frames, frame_s):
        interlaced = interlaced or frame.interlaced_frame
        kind = (frame.width, frame.height, frame.format.name, _turns(frame), frame.color_trc in _HDR, interlaced)
        if kind != built_for:  # the size may change in mid-stream, e.g. with the window that is recorded
            for picture in _rest(graph, rate):
                size = size or picture.shape[:2]
                yield picture
            graph, built_for = _linked(frame, *_steps(frame, size, pixel_aspect, rate, frame_s, interlaced)), kind
        graph.push(frame)
        for picture in _ready(graph):
            size = size or picture.shape[:2]
            yield picture
    yield from _rest(graph, rate)


def _rising(frames: Iterable[av.VideoFrame], frame_s: float) -> Iterator[av.VideoFrame]:
    """Frames with time stamps that rise: a missing one, a step back or a long gap becomes one frame's time."""
    last, shift = None, 0
    for frame in frames:
        step = max(1, round(frame_s / frame.time_base))
        now = shift + (frame.pts or 0)
        if last is not None and (frame.pts is None or not 0 < now - last <= LONGEST_HOLD / frame.time_base):
            shift, now = shift + (last + step - now if frame.pts is not None else 0), last + step
        frame.pts = last = now
        frame.duration = frame.duration or step  # FLV and WMV say none: the last frame would be lost
        yield frame


def _ready(graph: av.filter.Graph) -> Iterator[np.ndarray]:
    """The pictures that have come out of a graph so far."""
    with suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            yield graph.pull().to_ndarray()


def _rest(graph: av.filter.Graph | None, rate: float | None) -> Iterator[np.ndarray]:
    """What is still in a graph; the last frame may claim to last for hours."""
    if graph is not None:
        graph.push(None)
        yield from islice(_ready(graph), math.ceil(LONGEST_HOLD * (rate or 1)) + 1)


def _steps(
    frame: av.VideoFrame,
    size: tuple[int, int] | None,
    aspect: Fraction | None,
    rate: float | None,
    frame_s: float,
    interlaced: bool,
) -> list[Step]:
    turns = _turns(frame)
    steps: list[Step] = [("bwdif", "mode=send_frame:deint=interlaced")] if interlaced else []
    if rate:  # nearly half of what a frame is shorter than before, so that each instant gets the frame nearest to it
        later = max(0.0, 0.4 * (1 / rate - frame_s))
        grid = f"fps={Fraction(rate).limit_denominator(100_000)}:round=near"
        steps += [("setpts", f"PTS-STARTPTS+{later:.9f}/TB"), ("fps", grid)]
    if frame.color_trc in _HDR:  # a step of its own: together with the area scaler, greens come out wrong
        steps += [("scale", _TONE_MAP), ("format", "rgb24")]
    if size and turns and turns[0][0] == "transpose":
        size = size[::-1]
    return [*steps, *_covering(frame, size, aspect), *turns]


def _covering(frame: av.VideoFrame, size: tuple[int, int] | None, aspect: Fraction | None) -> list[Step]:
    """Square the pixels, scale to cover `size` and crop centrally; without a size, only square the pixels."""
    aspect = float(aspect or 1)
    aspect = aspect if 1 / 8 <= aspect <= 8 else 1.0  # nobody films so: damaged
    high, wide = frame.height * max(1.0, 1 / aspect), frame.width * max(1.0, aspect)
    if size is None:
        return [("scale", _SCALER if aspect == 1 else f"{round(wide)}:{round(high)}:{_SCALER}")]
    height, width = size
    scale = max(height / high, width / wide)
    tall, broad = max(height, round(high * scale)), max(width, round(wide * scale))
    if tall * broad > _MOST_PIXELS:
        raise VideoError(f"a picture of {frame.width}x{frame.height} cannot fill {width}x{height}; crop it first")
    return [("scale", f"{broad}:{tall}:{_SCALER}"), ("crop", f"{width}:{height}")]


def _turns(frame: av.VideoFrame) -> tuple[Step, ...]:
    """Turns and mirrors of the display matrix, as FFmpeg's own tools show it: phones store upright video lying down."""
    side = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if side is None:
        return ()
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(side, np.int32))
    if not (a or c) or not (b or d):
        return ()
    angle = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))) % 360
    if angle in (90, 270):
        mirrored, plain = ("cclock_flip", "clock") if angle == 90 else ("clock_flip", "cclock")
        return (("transpose", f"dir={mirrored if (c > 0) == (angle == 90) else plain}"),)
    if angle in (0, 180):
        flips = (("hflip", ""),) if angle == 180 and a < 0 else ()
        return (*flips, ("vflip", "")) if d < 0 else flips
    return (("rotate", f"a={angle}*PI/180"),)
