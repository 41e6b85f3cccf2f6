"""Videos as cameras, recorders and editors write them come out upright, whole, in real time and in their own colours.

All show a colour card: its quadrants tell turns, a grey square in the middle tells the source frame.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from mobivid_core.data.video_io import iterate_frames, read_video
from mobivid_core.errors import VideoError

HEIGHT, WIDTH = 96, 160
CORNERS = {"R": (220, 30, 30), "G": (30, 200, 30), "B": (30, 30, 220), "Y": (220, 200, 30)}
TICKS = 1200  # a second
SIZE = (64, 64)
EVEN = [k / 60 for k in range(60)]


def card(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Red, green / blue, yellow; in the middle a square of the level 20 + 1.7 `index`."""
    picture = np.zeros((height, width, 3), np.uint8)
    halves = (slice(None, height // 2), slice(height // 2, None)), (slice(None, width // 2), slice(width // 2, None))
    for colour, (row, column) in zip(CORNERS.values(), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        picture[halves[0][row], halves[1][column]] = colour
    side = min(height, width) // 8
    middle = slice(height // 2 - side, height // 2 + side), slice(width // 2 - side, width // 2 + side)
    picture[middle] = min(250, round(20 + 1.7 * index))
    return picture


def film(path: Path, seconds: Sequence[float], codec: str = "libx264", size=(HEIGHT, WIDTH), **stream_options) -> Path:
    """A card for each time stamp; `stream_options` are set on the stream (its pixel aspect, say)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=60, options={"crf": "8"} if codec == "libx264" else {})
        stream.bit_rate = 4_000_000
        stream.height, stream.width = size
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        stream.codec_context.max_b_frames = 0
        for name, value in stream_options.items():
            setattr(stream.codec_context, name, value)
        for index, second in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(card(index, *size), format="rgb24")
            frame.pts, frame.time_base = round(second * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run FFmpeg's own tool; returns what it wrote to standard output."""
    quiet = ("-loglevel", "error", "-y", "-threads", "1", "-filter_threads", "1")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


def corners(picture: np.ndarray) -> str:
    """Names of the colours at top left, top right, bottom left and bottom right."""
    height, width = picture.shape[:2]
    places = [(y, x) for y in (height // 8, -1 - height // 8) for x in (width // 8, -1 - width // 8)]
    return "".join(min(CORNERS, key=lambda n: np.abs(picture[p].astype(int) - CORNERS[n]).sum()) for p in places)


def shown(frames: np.ndarray) -> np.ndarray:
    """Source frame that each picture shows, read off the grey square."""
    middle = frames[:, frames.shape[1] // 2 - 2 : frames.shape[1] // 2 + 2, frames.shape[2] // 2 - 2 :][:, :, :4]
    return (middle.mean((1, 2, 3)) - 20) / 1.7


def at_24(path: Path) -> np.ndarray:
    return np.stack(list(iterate_frames(path, size=SIZE, max_fps=24)))


@pytest.mark.parametrize(("name", "start"), [("a.mp4", 0), ("b.ts", 1.4), ("c.mkv", 10), ("d.mkv", 3600), ("e.avi", 0)])
def test_time_counts_from_the_first_frame(tmp_path: Path, name: str, start: float) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    frames = at_24(film(tmp_path / name, [start + t for t in EVEN], codec))
    assert len(frames) == 24
    # each instant shows the frame nearest to it: half a frame of 60, and the grey level's rounding
    assert np.abs(shown(frames) - 60 / 24 * np.arange(24)).max() < 1.1


@pytest.mark.parametrize(("first", "then"), [(30, 5), (5, 60), (10, 24)])
def test_a_variable_rate_comes_out_in_real_time(tmp_path: Path, first: float, then: float) -> None:
    """Two seconds at one rate, two at another: a picture is held for as long as the file holds it."""
    times = [k / first for k in range(int(2 * first))] + [2 + k / then for k in range(int(2 * then))]
    frames = at_24(film(tmp_path / "recorded.mkv", times))
    assert abs(len(frames) - 96) <= 5  # how long the last frame lasts is not in the file
    instants = (np.arange(len(frames)) + 0.6) / 24  # well inside what each picture is shown for
    expected = np.searchsorted(times, instants, side="right") - 1
    assert np.abs(shown(frames) - expected).max() < max(first, then) / 24 + 1


def test_the_last_frame_counts_where_no_frame_has_a_length(tmp_path: Path) -> None:
    for name, codec in (("a.flv", "flv"), ("b.wmv", "wmv2")):
        film(tmp_path / name, [k / 30 for k in range(40)], codec)
        np.testing.assert_allclose(shown(at_24(tmp_path / name))[[0, -1]], [0, 39], atol=0.8)
        assert len(at_24(tmp_path / name)) == 32


def test_a_slow_file_keeps_its_frames_and_a_frozen_clock_ends(tmp_path: Path) -> None:
    assert len(at_24(film(tmp_path / "slow.mp4", [k / 15 for k in range(30)]))) == 30
    jump = [*EVEN[:30], *(t + 5000 for t in EVEN[30:])]  # the clock was set in between: not a picture held for an hour
    assert abs(len(at_24(film(tmp_path / "jump.mkv", jump))) - 24) <= 1


@pytest.mark.parametrize("turn", ["display_rotation 90", "display_rotation 180", "display_rotation 270",
                                  "display_hflip", "display_vflip", "display_rotation 90 display_hflip",
                                  "display_rotation 270 display_vflip", "display_rotation 30"])  # fmt: skip
def test_turns_and_mirrors_are_shown_as_ffmpeg_shows_them(tmp_path: Path, turn: str) -> None:
    plain = film(tmp_path / "plain.mp4", EVEN[:3])
    options = [word if word.isdigit() else f"-{word}" for word in turn.split()]
    ffmpeg(*options, "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    ours = read_video(tmp_path / "turned.mp4")
    raw = ffmpeg("-i", tmp_path / "turned.mp4", "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(ours.shape[1:])
    # two orders of scaling and turning; a wrong turn differs by dozens
    assert np.abs(ours[0].astype(int) - theirs).mean() < 4


def test_a_stretched_pixel_is_squared(tmp_path: Path) -> None:
    wide = film(tmp_path / "dvd.mp4", EVEN[:2], sample_aspect_ratio=Fraction(2, 1))
    assert read_video(wide).shape == (2, HEIGHT, 2 * WIDTH, 3)
    tall = film(tmp_path / "tall.mp4", EVEN[:2], sample_aspect_ratio=Fraction(1, 2))
    assert read_video(tall).shape == (2, 2 * HEIGHT, WIDTH, 3)
    assert at_24(wide).shape[1:3] == SIZE


def test_an_interlaced_picture_holds_one_instant(tmp_path: Path) -> None:
    fields = ffmpeg("-i", film(tmp_path / "f.mp4", EVEN), "-vf", "tinterlace=interleave_top,setfield=tff",
                    "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2", tmp_path / "dv.mpg")  # fmt: skip
    assert not fields
    frames = read_video(tmp_path / "dv.mpg")
    inside = frames[5:25, HEIGHT // 2 - 6 : HEIGHT // 2 + 6, WIDTH // 2].astype(int).mean(-1)
    # both fields of a picture are nearly two grey levels apart; as one comb, neighbouring rows would differ by them
    assert np.abs(np.diff(inside, axis=1)).mean() < 1


def test_a_size_that_changes_in_mid_stream_is_scaled_right(tmp_path: Path) -> None:
    parts = [film(tmp_path / f"{k}.webm", EVEN[::2], "libvpx", size) for k, size in enumerate(((96, 160), (160, 96)))]
    (tmp_path / "list.txt").write_text("".join(f"file '{part}'\n" for part in parts))
    ffmpeg("-f", "concat", "-safe", "0", "-i", tmp_path / "list.txt", "-c", "copy", tmp_path / "window.webm")
    frames = at_24(tmp_path / "window.webm")
    grey = np.ptp(frames[-1].astype(int), axis=-1) < 25
    assert len(frames) == 48 and corners(frames[-1]) == "RGBY"
    rows, columns = grey[:, 32].sum(), grey[32].sum()
    assert abs(int(rows) - int(columns)) <= 2  # the square is a square
    assert read_video(tmp_path / "window.webm").shape == (60, 96, 160, 3)


def test_cover_art_is_never_the_video_and_the_default_stream_is(tmp_path: Path) -> None:
    video, other = film(tmp_path / "v.mp4", EVEN), film(tmp_path / "o.mp4", EVEN[:30], size=(192, 320))
    red = tmp_path / "red.jpg"
    ffmpeg("-f", "lavfi", "-i", "color=c=red:s=640x640", "-frames:v", "1", red)
    cover = ("-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", video, "-i", red, *cover, tmp_path / "cover.mp4")
    assert corners(at_24(tmp_path / "cover.mp4")[-1]) == "RGBY"
    two = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "0", "-disposition:v:1", "default")
    ffmpeg("-i", other, "-i", video, *two, tmp_path / "two.mkv")
    assert read_video(tmp_path / "two.mkv").shape[1:3] == (HEIGHT, WIDTH)
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-i", red, "-map", "0", "-map", "1", "-c:v", "copy", "-c:a", "aac",
           "-disposition:v:0", "attached_pic", tmp_path / "song.m4a")  # fmt: skip
    with pytest.raises(VideoError, match="holds cover art, but no video"):
        read_video(tmp_path / "song.m4a")


def test_hdr_is_brought_to_the_range_of_a_screen(tmp_path: Path) -> None:
    """The same signal, once said to be HLG: then its diffuse white is brighter than the signal's own value."""
    grey = np.tile(np.linspace(16, 235, WIDTH).astype(np.uint8)[None, :, None], (HEIGHT, 1, 3))
    with av.open(str(tmp_path / "plain.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")), *stream.encode()])
    tags = "setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc:range=tv"
    ffmpeg("-i", tmp_path / "plain.mkv", "-vf", tags, "-c:v", "ffv1", tmp_path / "hlg.mkv")
    plain, hlg = (read_video(tmp_path / name)[0, HEIGHT // 2, :, 1].astype(int) for name in ("plain.mkv", "hlg.mkv"))
    assert (np.diff(hlg) >= -1).all() and np.abs(hlg - plain).max() > 8
    assert hlg[0] < 30 and hlg[-1] > 220


def test_good_files_are_not_taken_for_broken_ones(tmp_path: Path) -> None:
    long = film(tmp_path / "long.mp4", [k / 30 for k in range(90)], gop_size=250)
    sound = ("-f", "lavfi", "-i", "sine=d=4.5", "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-shortest", "-shortest")
    for start in ("1.0", "2.5"):  # a trim without encoding keeps the lead-in, and an edit list hides it
        ffmpeg("-ss", start, "-i", long, "-c", "copy", tmp_path / "trimmed.mp4")
        assert abs(shown(read_video(tmp_path / "trimmed.mp4"))[0] - 30 * float(start)) < 1
    for name, codec in (("sound.mkv", "libopus"), ("sound.mp4", "aac")):
        ffmpeg("-i", long, *sound[:-2], "-c:a", codec, tmp_path / name)
        assert len(read_video(tmp_path / name)) == 90
    gaps = film(tmp_path / "gaps.avi", [k / 30 for k in range(90) if k % 7 and k not in range(40, 60)], "mpeg4")
    assert len(read_video(gaps)) == 60


def test_a_container_is_told_by_its_content(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mkv", EVEN).rename(tmp_path / "a:b.backup")  # FFmpeg takes "a:" for a protocol
    assert len(read_video(whole)) == 60
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{whole}\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="list.mp4"):
        read_video(tmp_path / "list.mp4")
