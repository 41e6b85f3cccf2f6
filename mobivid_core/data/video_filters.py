"""Convert decoded frames to upright RGB pictures with square pixels, using FFmpeg's filters.

Order of the filters: deinterlace, reduce the rate, bring HDR to the range of a plain screen, scale and crop, turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice

import numpy as np

from mobivid_core.data.video_source import LONGEST_HOLD, av
from mobivid_core.errors import VideoError

# Without these flags FFmpeg's scaler rounds down and blurs colour: a bias of one grey level.
SCALER = "flags=area+accurate_rnd+full_chroma_int+full_chroma_inp"
#: Transfer functions of HDR: PQ (SMPTE 2084) and HLG (ARIB STD-B67), by FFmpeg's numbers.
_HDR = frozenset({16, 18})
_TONE_MAP = "out_transfer=bt709:out_primaries=bt709:intent=perceptual"
#: Pixels of a scaled picture at most: a strip of 2x60000 pixels would be scaled to gigabytes before it is cropped.
_MOST_PIXELS = 2**27

Step = tuple[str, str]


def linked(frame: av.VideoFrame, *steps: Step) -> av.filter.Graph:
    """A graph of filters from frames like this one to RGB pictures."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    filters = [graph.add(name, arguments) for name, arguments in steps]
    last = [graph.add("format", "rgb24"), graph.add("buffersink")]
    graph.link_nodes(source, *filters, *last).configure()
    return graph


def pictures(
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
            graph, built_for = linked(frame, *_steps(frame, size, pixel_aspect, rate, frame_s, interlaced)), kind
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
    while True:
        try:
            yield graph.pull().to_ndarray()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


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
        return [("scale", SCALER if aspect == 1 else f"{round(wide)}:{round(high)}:{SCALER}")]
    height, width = size
    scale = max(height / high, width / wide)
    tall, broad = max(height, round(high * scale)), max(width, round(wide * scale))
    if tall * broad > _MOST_PIXELS:
        raise VideoError(f"a picture of {frame.width}x{frame.height} cannot fill {width}x{height}; crop it first")
    return [("scale", f"{broad}:{tall}:{SCALER}"), ("crop", f"{width}:{height}")]


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
