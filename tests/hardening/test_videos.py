"""Videos that break off, or whose bytes are damaged: a clear error, never half a video taken for a whole one."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mobivid_core.data.film import CHECKSUMS, film_clips, film_shots
from mobivid_core.data.folder import clips_from_folder
from mobivid_core.data.pool import film_pool
from mobivid_core.data.video_io import read_video, write_video
from mobivid_core.errors import VideoError
from mobivid_core.files import sha256
from mobivid_core.paths import data_dir

FRAMES = 60
#: Share of the bytes that is left. From 0.9 on, containers that declare no number of frames may pass as complete.
SHARES = (0.01, 0.05, 0.2, 0.5, 0.8, 0.89)


def _ramp() -> np.ndarray:
    x = np.arange(64)[None, None, :] + 2 * np.arange(FRAMES)[:, None, None]
    grey = 127 + 120 * np.sin(x / 9) * np.ones((1, 48, 1))
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def _avi(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.thread_count = 4  # slices a frame; left alone, the machine's cores would decide what is torn
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _gif(path: Path, frames: np.ndarray) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)


WRITERS = {
    ".mp4": write_video,
    ".mkv": lambda path, frames: write_video(path, frames, lossless=True),
    ".avi": _avi,
    ".gif": _gif,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("videos")
    for suffix, write in WRITERS.items():
        write(folder / f"whole{suffix}", _ramp())
        assert len(read_video(folder / f"whole{suffix}")) == FRAMES
    return {suffix: (folder / f"whole{suffix}").read_bytes() for suffix in WRITERS}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("share", SHARES)
def test_a_video_that_breaks_off_is_an_error(tmp_path: Path, whole: dict, suffix: str, share: float) -> None:
    file = tmp_path / f"torn{suffix}"
    file.write_bytes(whole[suffix][: int(share * len(whole[suffix]))])
    with pytest.raises(VideoError, match="torn"):
        read_video(file)


@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_bytes_never_show_as_another_error(tmp_path: Path, whole: dict, suffix: str) -> None:
    chance, file, refused = random.Random(0), tmp_path / f"damaged{suffix}", 0
    for _ in range(60):
        data = bytearray(whole[suffix])
        for _ in range(chance.choice([1, 5, 50])):
            reach = min(len(data), 4000) if chance.random() < 0.7 else len(data)  # headers matter most
            data[chance.randrange(reach)] = chance.randrange(256)
        file.write_bytes(data)
        try:
            read_video(file, size=(32, 32), max_fps=24)
        except VideoError as error:
            assert "damaged" in str(error)
            refused += 1
    assert refused  # the damage is hard enough to matter


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_is_read_of_a_torn_video_are_its_own_frames(tmp_path: Path, whole: dict, suffix: str) -> None:
    """Cut near its end it may pass, with all frames or without the last ones; none of them is a guess of the codec."""
    data, file = whole[suffix], tmp_path / f"torn{suffix}"
    file.write_bytes(data)
    truth, refused = read_video(file), 0
    for length in [*(int(len(data) * (0.9 + 0.005 * k)) for k in range(20)), *(len(data) - k for k in (1, 5, 60))]:
        file.write_bytes(data[:length])
        try:
            got = read_video(file)
        except VideoError:
            refused += 1
            continue
        assert len(got) >= 0.85 * FRAMES and np.array_equal(got, truth[: len(got)])
    assert refused >= 1 or suffix == ".mkv"


def test_a_folder_names_the_torn_videos_and_uses_the_others(tmp_path: Path, whole: dict) -> None:
    (tmp_path / "good.mp4").write_bytes(whole[".mp4"])
    for suffix, data in whole.items():
        (tmp_path / f"torn{suffix}").write_bytes(data[: len(data) // 2])
    clips, report = clips_from_folder(tmp_path, size=32)
    assert len(clips) == 3  # 60 frames hold three clips of 17
    assert [file.name for file in report.used] == ["good.mp4"]
    assert {file.name for file in report.skipped} == {f"torn{suffix}" for suffix in whole}
    assert all(file.reason for file in report.skipped)
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(VideoError, match=r"(?s)no clip of 17 frames.*torn\.gif: breaks off"):
        clips_from_folder(tmp_path, size=32)


@pytest.fixture()
def copied_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    (root / "data" / "paper").mkdir(parents=True)
    shutil.copytree(data_dir() / "clips", root / "data" / "clips")
    monkeypatch.setenv("MOBIVID_ROOT", str(root))
    return root / "data" / "clips"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97])
def test_the_shipped_film_cut_short_names_its_remedy(copied_film: Path, split: str, share: float) -> None:
    last = max(film_shots(split), key=lambda shot: shot.first_frame)
    file = copied_film / last.file
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(VideoError, match=f"{last.file}.*git checkout -- data/clips"):
        film_clips(split, size=32)


def test_training_notices_the_last_missing_frames(copied_film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # FFmpeg takes a file that lost under a tenth of its frames for whole: the table of shots knows better
    monkeypatch.setattr("mobivid_core.data.pool.iterate_frames", lambda path: iter([np.zeros((8, 8, 3), "u1")] * 50))
    with pytest.raises(VideoError, match="train.mp4: breaks off after 50 of .*git checkout -- data/clips"):
        film_pool()


def test_a_missing_film_names_its_remedy(copied_film: Path) -> None:
    (copied_film / "test.mp4").unlink()
    with pytest.raises(VideoError, match="test.mp4: no such file.*git checkout -- data/clips"):
        film_clips("test", size=32, limit=1)


def test_a_flipped_byte_in_the_film_is_noticed(copied_film: Path) -> None:
    file = copied_film / "test.mp4"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    with pytest.raises(VideoError, match="test.mp4.*git checkout -- data/clips"):
        film_clips("test", size=32, limit=1)


def test_the_film_in_the_repository_is_the_one_on_the_list() -> None:
    listed = dict(reversed(line.split()) for line in (data_dir() / "clips" / CHECKSUMS).read_text().splitlines())
    assert listed == {name: sha256(data_dir() / "clips" / name) for name in ("test.mp4", "train.mp4")}
