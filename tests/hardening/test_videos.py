"""A video that was cut short is an error that names it, or gives exactly its first frames: never a made-up picture."""

from __future__ import annotations

import random
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mobivid_core.data.film import film_clips
from mobivid_core.data.folder import clips_from_folder
from mobivid_core.data.video_io import iterate_frames, read_spans
from mobivid_core.errors import VideoError
from mobivid_core.paths import data_dir

FRAMES = 40
KINDS = [("mp4", "libx264"), ("mov", "libx264"), ("mkv", "ffv1"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"),
         ("gif", "gif")]  # fmt: skip
PIXELS = {"ffv1": "bgr0", "gif": "rgb8"}


def _write(path: Path, codec: str) -> Path:
    """A moving ramp with noise, so that no two frames are alike."""
    x = np.arange(64)[None, None, :] + 2 * np.arange(FRAMES)[:, None, None]
    ramp = (0.7 + 0.3 * np.sin(x / 15) * np.ones((1, 48, 1)))[..., None] * np.array((200, 60, 40))
    pictures = (ramp + np.random.default_rng(0).integers(0, 20, ramp.shape)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt = 48, 64, PIXELS.get(codec, "yuv420p")
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_a_users_video_cut_anywhere_is_an_error_or_its_own_first_frames(tmp_path, suffix, codec):
    whole = _write(tmp_path / f"whole.{suffix}", codec)
    truth, data = list(iterate_frames(whole)), whole.read_bytes()
    assert len(truth) == FRAMES
    cut = tmp_path / f"cut.{suffix}"
    refused = 0
    for length in [*(len(data) * k // 20 for k in range(1, 20)), *(len(data) - k for k in (1, 5, 60))]:
        cut.write_bytes(data[:length])
        try:
            got = list(iterate_frames(cut))
        except VideoError as error:
            assert str(error).startswith(cut.name)
            refused += 1
            continue
        assert len(got) == 1 or len(got) >= 0.9 * FRAMES  # one frame tells no length, and is no clip either
        assert all(np.array_equal(a, b) for a, b in zip(got, truth, strict=False))
    assert refused >= 16


def test_a_folder_goes_on_without_its_cut_videos_and_names_them(tmp_path):
    for suffix, codec in KINDS:
        data = _write(tmp_path / f"{codec}.{suffix}", codec).read_bytes()
        (tmp_path / f"{codec}.{suffix}").write_bytes(data[: len(data) // 2])
    _write(tmp_path / "good.mp4", "libx264")
    clips, report = clips_from_folder(tmp_path, frames=17, size=32)
    assert [file.name for file in report.used] == ["good.mp4"] and len(clips) == 2
    assert {file.name for file in report.skipped} == {f"{codec}.{suffix}" for suffix, codec in KINDS}
    assert all(file.reason for file in report.skipped)


@pytest.fixture()
def copied_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose clips may be damaged; everything else is a link."""
    root = tmp_path / "checkout"
    (root / "data").mkdir(parents=True)
    for part in data_dir().iterdir():
        if part.name != "clips":
            (root / "data" / part.name).symlink_to(part)
    shutil.copytree(data_dir() / "clips", root / "data" / "clips")
    monkeypatch.setenv("MOBIVID_ROOT", str(root))
    return root / "data" / "clips"


@pytest.mark.parametrize("name", ["test.mp4", "train.mp4"])
def test_a_shipped_film_cut_anywhere_says_what_to_do(copied_clips, name):
    file, split = copied_clips / name, name.removesuffix(".mp4")
    data = file.read_bytes()
    starts = [0, 40, 80]
    truth = read_spans(file, starts, 5, crop=128, size=32)
    chance = random.Random(0)
    for share in (0, 0.001, 0.01, 0.1, 0.5, 0.9):
        file.write_bytes(data[: int(len(data) * share) + chance.randrange(50)])
        try:  # a span before the cut may be read, and is right
            got = read_spans(file, starts, 5, crop=128, size=32)
            assert all(np.array_equal(a, b) for a, b in zip(got, truth, strict=True))
        except VideoError as error:
            assert name in str(error)
        with pytest.raises(VideoError, match=rf"{name}.*git checkout -- data/clips"):
            film_clips(split, frames=17, size=16, limit=30)
    file.unlink()
    with pytest.raises(VideoError, match=rf"{name}.*git checkout -- data/clips"):
        film_clips(split, frames=17, size=16, limit=1)
