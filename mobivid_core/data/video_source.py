"""Open a video file: choose the stream, check that the file is complete, find its frame rate.

Containers are told by their content, never by the file's name. FFmpeg ends quietly where a download broke off, so
`survey` reads all packets first (without decoding) and compares them with what the file itself declares.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from mobivid_core.errors import VideoError

try:
    import av
except ImportError:  # captioned clips need no video files; a wheel of PyAV is missing on few machines
    av = None

#: FFmpeg draws text files as pictures; its playlists read other files than the one that was given.
_NOT_VIDEO = frozenset({"tty", "bin", "xbin", "adf", "idf", "hls", "dash", "concat", "sdp"})
#: Containers whose header says how long all streams last, and those that say it of each stream.
_DECLARES_LENGTH, _DECLARES_STREAM = frozenset({"matroska,webm", "flv", "asf"}), frozenset({"avi"})
#: Share of the declared length that may be missing: headers round, and writers disagree about the last frame.
_SLACK = 0.1
#: Seconds a picture is held at most; a longer gap is a clock that was set anew (FFmpeg's tool takes 10 s, too).
LONGEST_HOLD = 10.0
#: A file whose largest gap is below this many mean gaps is steady; film in a telecine pattern has 1.2, a lost frame 2.
_STEADY = 1.3


@contextmanager
def decoding(path: Path, remedy: str = "is it a complete video file, of a kind that FFmpeg reads?") -> Iterator[None]:
    """Turn every error of the decoder, a missing file and a missing PyAV into a VideoError that names the file."""
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    if av is None:
        raise VideoError(f"{path.name}: reading videos needs PyAV (pip install av)")
    try:
        yield
    # A damaged header may declare a size or rate of 0, or more memory than there is.
    except (av.FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error  # FFmpeg's own text ends with the path
        raise VideoError(f"{path.name}: cannot be decoded ({reason}); {remedy}") from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and the stream that a player would show (errors are FFmpeg's own, and VideoError)."""
    # "file:" because FFmpeg takes "a:b.mp4" for a protocol; titles may be in any encoding
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        if container.format.name in _NOT_VIDEO:
            raise VideoError(f"{path.name}: not a video, but text or a playlist ({container.format.name})")
        yield container, _shown_stream(container, path)


def survey(path: Path, max_fps: float | None) -> tuple[float, float | None]:
    """Read the packets of a file once; a VideoError if one is missing or damaged, or the file holds no video.

    Returns the mean seconds between frames (of a file with variable rate, its shortest usual gap), and the frames a
    second to deliver on a regular grid: None keeps every frame, as of a steady file at or below the limit.
    """
    _check_gif_end(path)
    times, last = [], 0.0
    with opened(path) as (container, stream):
        for packet in _packets(container):
            stamp = packet.dts if packet.pts is None else packet.pts
            if not packet.size or stamp is None:
                continue
            begin, own = float(stamp * packet.time_base), packet.stream.index == stream.index
            if own or container.format.name in _DECLARES_LENGTH:  # sound or subtitles may end later
                last = max(last, begin + float((packet.duration or 0) * packet.time_base))
            if own and packet.is_corrupt:
                _check_extent(path, stream)
                raise _torn(path, f"breaks off or is damaged at {begin:.1f} s")
            if own and not packet.is_discard:  # an edit list may hide frames that others are predicted from
                times.append(begin)
        _check_extent(path, stream)
        _check_length(path, container, stream, last)
    return _rates(np.sort(times), max_fps)


def whole_packets(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[av.VideoFrame]:
    """Decode; FFmpeg makes a picture that was never filmed of what is left of a packet: that is an error here."""
    for packet in _packets(container, stream):
        if packet.is_corrupt:
            seconds = float((packet.pts or 0) * packet.time_base)
            raise _torn(path, f"breaks off or is damaged at {seconds:.1f} s")
        yield from packet.decode()


def _packets(container: av.container.InputContainer, *streams: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of these streams, or of all.

    After the last one PyAV flushes every stream, also one that it never listed: it then raises IndexError.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def _shown_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The default stream, and of several the largest; never a cover or a track of thumbnails."""
    kinds = av.stream.Disposition
    still = kinds.attached_pic | kinds.timed_thumbnails
    shown = [stream for stream in container.streams.video if not stream.disposition & still]
    if not shown:
        kind = "cover art, but no video" if container.streams.video else "no video stream"
        raise VideoError(f"{path.name}: holds {kind}")
    known = [stream for stream in shown if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{path.name}: its codec is unknown here; convert the file to H.264, or fetch it again")
    stream = max(known, key=lambda s: (bool(s.disposition & kinds.default), s.width * s.height))
    stream.codec_context.thread_count = 1
    return stream


def _rates(times: np.ndarray, max_fps: float | None) -> tuple[float, float | None]:
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    ordinary = gaps[gaps <= LONGEST_HOLD] if (gaps <= LONGEST_HOLD).any() else gaps
    if not len(ordinary):
        return 0.0, None
    steady = ordinary.max() < _STEADY * ordinary.mean()
    frame_s = float(ordinary.mean() if steady else np.percentile(ordinary, 5))
    keeps_all = max_fps is None or (steady and frame_s * max_fps > 0.98)
    return frame_s, None if keeps_all else min(max_fps, 1 / frame_s)


def _check_extent(path: Path, stream: av.VideoStream) -> None:
    """An index (MP4, MOV, AVI) says where every frame lies in the file: is the file that long?"""
    size, entries = path.stat().st_size, stream.index_entries
    beyond = sum(entry.pos + entry.size > size for entry in entries)
    if beyond:
        raise _torn(path, f"breaks off after {len(entries) - beyond} of {len(entries)} frames")


def _check_length(path: Path, container: av.container.InputContainer, stream: av.VideoStream, last: float) -> None:
    """Compare the end of the last packet, in seconds, with the end that the header declares."""
    start = float((container.start_time or 0) / av.time_base)
    declared = 0.0
    if container.format.name in _DECLARES_LENGTH:
        declared = (container.duration or 0) / av.time_base
    elif container.format.name in _DECLARES_STREAM:
        declared = float((stream.duration or 0) * stream.time_base)
    # Matroska's length counts from time 0 as FFmpeg writes it, and from the first packet as others do.
    length = declared - start if declared > start else declared
    if declared - last > _SLACK * length:
        raise _torn(path, f"breaks off after {max(0.0, last - start):.1f} of {length:.1f} seconds")


def _check_gif_end(path: Path) -> None:
    """A GIF declares no length at all, so FFmpeg cannot miss what is cut off; but it ends with a semicolon."""
    with path.open("rb") as stream:
        if stream.read(4) != b"GIF8":
            return
        stream.seek(max(0, path.stat().st_size - 1024))
        if not stream.read().rstrip(b"\0").endswith(b";"):
            raise _torn(path, "breaks off, a whole GIF ends otherwise")


def _torn(path: Path, how: str) -> VideoError:
    return VideoError(f"{path.name}: {how}; fetch the file again")
