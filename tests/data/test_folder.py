"""Folders of anybody's videos: every file is used or named with a reason, and no shot is in both halves."""

import av
import numpy as np
import pytest
import torch

from mobivid_core.data import folder as module
from mobivid_core.data.folder import clips_from_folder, folder_pool, main
from mobivid_core.data.video_io import clip_to_frames, write_video
from mobivid_core.errors import ParameterError, VideoError

RED, BLUE, GREEN = (200, 60, 40), (40, 60, 200), (60, 200, 60)


def smooth(frames: int, hue: tuple[int, int, int] = RED, height: int = 48, width: int = 64) -> np.ndarray:
    """A moving ramp of one hue: two hues make a cut, one hue makes none."""
    x = np.arange(width)[None, None, :] + 2 * np.arange(frames)[:, None, None]
    ramp = 0.7 + 0.3 * np.sin(x / 15) * np.ones((1, height, 1))
    return np.round(ramp[..., None] * np.array(hue)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "two_shots.mp4", np.concatenate([smooth(40), smooth(20, BLUE)]))
    write_video(tmp_path / "short.mp4", smooth(8))
    (tmp_path / "inner").mkdir()
    write_video(tmp_path / "inner" / "one.mkv", smooth(17), lossless=True)
    whole = (tmp_path / "two_shots.mp4").read_bytes()
    (tmp_path / "broken.mp4").write_bytes(whole[: len(whole) // 8])
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".hidden.mp4").write_text("passed over")
    return tmp_path


def test_a_folder_counts_and_names_what_it_skips(folder):
    clips, report = clips_from_folder(folder, frames=17, size=32)
    assert clips.shape == (4, 3, 17, 32, 32) and clips.dtype == torch.float32
    assert {file.name: file.clips for file in report.used} == {"two_shots.mp4": 3, "inner/one.mkv": 1}
    reasons = {file.name: file.reason for file in report.skipped}
    assert set(reasons) == {"broken.mp4", "notes.txt", "short.mp4"}
    assert "cannot be decoded" in reasons["broken.mp4"]
    assert "cannot be decoded" in reasons["notes.txt"]
    assert "8 frames" in reasons["short.mp4"]
    assert "3 skipped" in str(report)


def _sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux([*stream.encode(sound), *stream.encode()])


def test_every_kind_of_bad_file_is_named_and_none_stops_the_rest(tmp_path):
    """Names in other scripts, spaces and quotes are ordinary; whatever cannot be read says why."""
    good = write_video(tmp_path / "été 夏 'zoom' #1.mp4", smooth(40), crf=10)
    whole = write_video(tmp_path / "x.mkv", smooth(40), lossless=True).read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x.mkv").unlink()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mov").write_text("not a video")
    (tmp_path / "zeros.avi").write_bytes(bytes(4096))
    (tmp_path / "folder.mp4").mkdir()
    _sound_only(tmp_path / "song.mp4")
    _, report = clips_from_folder(tmp_path, size=32)
    assert [file.name for file in report.used] == [good.name]
    reasons = {file.name: file.reason for file in report.skipped}
    assert set(reasons) == {"half.mkv", "empty.mp4", "text.mov", "zeros.avi", "song.mp4"}
    assert "breaks off" in reasons["half.mkv"] and "0 bytes" in reasons["empty.mp4"]
    assert "cannot be decoded" in reasons["text.mov"] and "cannot be decoded" in reasons["zeros.avi"]
    assert "no video" in reasons["song.mp4"]


def test_a_limit_per_file_keeps_every_shot(folder):
    _, report = clips_from_folder(folder, frames=17, size=32, per_file=2)
    assert report.used[-1].clips == 2


def test_a_folder_without_clips_lists_the_reasons(folder, tmp_path):
    with pytest.raises(VideoError, match="short.mp4: its longest shot has 8 frames"):
        clips_from_folder(folder, frames=57, size=32)
    with pytest.raises(ParameterError, match="is not a folder"):
        clips_from_folder(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(VideoError, match="0 clips from 0 files, 0 skipped"):
        clips_from_folder(tmp_path / "bare")


def test_long_files_give_the_same_clips_from_little_memory(folder, monkeypatch):
    """Frames past the limit are read a second time instead of kept."""
    short, _ = clips_from_folder(folder, size=32)
    monkeypatch.setattr(module, "KEPT_FRAMES", 10)
    long, report = clips_from_folder(folder, size=32)
    assert torch.equal(short, long) and report.used[-1].frames == 60


def test_a_pool_keeps_whole_files_apart(tmp_path):
    hues = {f"{i}.mkv": (20 + 30 * i, 200 - 20 * i, 90) for i in range(6)}
    for name, hue in hues.items():
        write_video(tmp_path / name, smooth(40, hue), lossless=True)
    pool = folder_pool(tmp_path, frames=17, size=32)
    assert pool.train.dtype == torch.uint8 and pool.train.shape == (10, 3, 17, 32, 32) and len(pool.test) == 2
    hue_of = [clips.float().amax((2, 3, 4))[:, 0] for clips in (pool.train, pool.test)]
    assert not set(hue_of[0].round().tolist()) & set(hue_of[1].round().tolist())
    clips, _ = clips_from_folder(tmp_path, frames=17, size=32)
    expected = torch.stack([torch.from_numpy(clip_to_frames(clip)).permute(3, 0, 1, 2) for clip in clips])
    assert sorted(pool.train.float().mean((1, 2, 3, 4)).tolist() + pool.test.float().mean((1, 2, 3, 4)).tolist()) == (
        sorted(expected.float().mean((1, 2, 3, 4)).tolist())
    )


def test_one_file_is_split_by_shot(tmp_path):
    write_video(tmp_path / "film.mkv", np.concatenate([smooth(40), smooth(40, BLUE), smooth(40, GREEN)]), lossless=True)
    pool = folder_pool(tmp_path, frames=17, size=32)
    assert len(pool.train) == 4 and len(pool.test) == 2
    brightest = [clips.float().mean((2, 3, 4)).argmax(1).unique().tolist() for clips in (pool.train, pool.test)]
    assert not set(brightest[0]) & set(brightest[1])
    assert len(folder_pool(tmp_path, frames=17, size=32, limit=3).train) == 2


def test_a_pool_without_anything_to_measure_on_is_refused(tmp_path):
    write_video(tmp_path / "one_shot.mkv", smooth(60), lossless=True)
    with pytest.raises(VideoError, match="come from one shot"):
        folder_pool(tmp_path, frames=17, size=32)
    with pytest.raises(ParameterError, match="limit must be at least 2"):
        folder_pool(tmp_path, limit=1)


def test_the_check_command_reports(folder, capsys):
    assert main([str(folder), "--size", "32"]) == 0
    assert "skipped  broken.mp4" in capsys.readouterr().out
    assert main([str(folder / "nowhere")]) == 2
    assert "not a folder" in capsys.readouterr().err
