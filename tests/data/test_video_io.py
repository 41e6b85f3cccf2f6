"""Files: exact where the codec is lossless, close where it is not, and clear where a file is bad."""

import av
import numpy as np
import pytest
import torch

from mobivid_core.data.shots import find_shots, windows
from mobivid_core.data.video_io import clip_to_frames, frames_to_clip, read_spans, read_video, write_video
from mobivid_core.errors import VideoError


def noise(frames: int = 5, height: int = 37, width: int = 51, seed: int = 0) -> np.ndarray:
    """Hardest content for a codec; odd sides on purpose."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def smooth(frames: int, height: int = 48, width: int = 64, hue: tuple[int, int, int] = (200, 60, 40)) -> np.ndarray:
    """A moving ramp of one hue: two hues make a cut, one hue makes none."""
    x = np.arange(width)[None, None, :] + 2 * np.arange(frames)[:, None, None]
    ramp = 0.7 + 0.3 * np.sin(x / 15) * np.ones((1, height, 1))
    return np.round(ramp[..., None] * np.array(hue)).astype(np.uint8)


def test_ffv1_round_trip_is_exact(tmp_path):
    frames = noise()
    write_video(tmp_path / "clip.mkv", frames, lossless=True)
    assert np.array_equal(read_video(tmp_path / "clip.mkv"), frames)


def test_h264_round_trip_is_close_and_unbiased(tmp_path):
    frames = smooth(9)
    write_video(tmp_path / "clip.mp4", frames, crf=10)
    error = read_video(tmp_path / "clip.mp4").astype(int) - frames
    # Chroma subsampling and quantisation of a smooth ramp: a few grey levels, no shift of the mean.
    assert np.abs(error).mean() < 3
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1


def test_equal_clips_give_equal_files(tmp_path):
    first, second = (write_video(tmp_path / name, smooth(9)).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert first == second


def test_clip_and_frames_are_inverses():
    frames = noise()
    clip = frames_to_clip(frames)
    assert clip.shape == (3, 5, 37, 51) and clip.min() >= -1 and clip.max() <= 1
    assert np.array_equal(clip_to_frames(clip), frames)
    assert np.array_equal(clip_to_frames(torch.full((3, 1, 2, 2), 7.0)), np.full((1, 2, 2, 3), 255))


def test_resizing_covers_and_crops_centrally(tmp_path):
    frames = np.zeros((2, 40, 80, 3), np.uint8)
    frames[:, :, 20:60] = 255  # the central square is white
    write_video(tmp_path / "wide.mkv", frames, lossless=True)
    picture = read_video(tmp_path / "wide.mkv", size=(20, 20))
    assert picture.shape == (2, 20, 20, 3)
    # Area averaging leaves the inside exact; FFmpeg's fixed-point filter may miss white by one level.
    assert picture[:, 1:-1, 1:-1].min() >= 254


@pytest.mark.parametrize(("fps", "kept"), [(48, 12), (30, 20), (24, 24), (10, 24)])
def test_fast_files_lose_frames_and_slow_ones_gain_none(tmp_path, fps, kept):
    write_video(tmp_path / "clip.mkv", noise(24), fps=fps, lossless=True)
    # One frame of slack: at 30 a second the last kept frame depends on where the grid ends.
    assert abs(len(read_video(tmp_path / "clip.mkv", max_fps=24)) - kept) <= 1


def test_spans_equal_a_full_read(tmp_path):
    path = write_video(tmp_path / "film.mp4", smooth(200, 32, 40))
    whole = read_video(path)
    for span, start in zip(read_spans(path, [3, 150], 5, crop=32, size=32), [3, 150], strict=True):
        # Same decoder, another colour conversion path: one level of rounding.
        assert np.abs(span.astype(int) - whole[start : start + 5, :, 4:36]).max() <= 2
    with pytest.raises(VideoError, match="ends before"):
        read_spans(path, [198], 5, crop=32, size=32)


def test_undecodable_files_say_so(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match="text.mp4: cannot be decoded"):
        read_video(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match="no such file"):
        read_video(tmp_path / "nowhere.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])  # Matroska declares a duration, but no number of frames
def test_a_file_that_breaks_off_is_an_error(tmp_path, suffix):
    whole = write_video(tmp_path / f"whole.{suffix}", noise(40), crf=10).read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match=r"half\.\w+: (breaks off|cannot be decoded)"):
        read_video(tmp_path / f"half.{suffix}")


def test_sound_that_starts_late_is_no_error(tmp_path):
    path = tmp_path / "live.flv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flv", rate=2)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(400):
            picture = np.full((32, 32, 3), index % 250, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    tag = b"\x08" + (41).to_bytes(3, "big") + (200_000).to_bytes(3, "big") + bytes(4) + b"\x2e" + bytes(40)
    path.write_bytes(path.read_bytes() + tag + len(tag).to_bytes(4, "big"))
    frames = read_video(path)
    assert len(frames) == 400


@pytest.mark.parametrize(
    ("frames", "name", "text"),
    [
        (np.zeros((2, 4, 4), np.uint8), "a.mp4", "expected frames uint8"),
        (np.zeros((2, 4, 4, 3), np.float32), "a.mp4", "float32"),
        (torch.zeros(1, 3, 2, 4, 4), "a.mp4", "index the batch first"),
    ],
)
def test_writing_something_else_is_refused(tmp_path, frames, name, text):
    with pytest.raises(VideoError, match=text):
        write_video(tmp_path / name, frames)


def test_lossless_needs_matroska(tmp_path):
    with pytest.raises(VideoError, match=r"name the file \.mkv"):
        write_video(tmp_path / "a.mp4", noise(), lossless=True)


def test_a_cut_is_found_and_motion_is_not():
    film = np.concatenate([smooth(30), smooth(25, hue=(40, 60, 200)), smooth(20, hue=(60, 200, 60))])
    assert find_shots(film) == [(0, 30), (30, 25), (55, 20)]
    assert find_shots(smooth(60)) == [(0, 60)]
    assert find_shots([]) == []


def test_windows_are_disjoint_inside_the_shot_and_start_in_the_middle():
    starts = windows(100, 57, 17)
    assert sorted(starts) == [103, 120, 137] and starts[0] == 120
    assert windows(0, 16, 17) == []
