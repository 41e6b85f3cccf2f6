"""Players and files of clips: what is embedded decodes again, within its size limit."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from mobivid_core.data.video_io import read_video
from mobivid_core.errors import ParameterError
from mobivid_core.show import media


def moving_clips(number: int = 2, frames: int = 9, size: int = 32) -> torch.Tensor:
    """Squares that move over a ramp, one hue a clip: (N, 3, T, H, W)."""
    clips = torch.linspace(-0.5, 0.5, size).expand(number, 3, frames, size, size).clone()
    for n in range(number):
        for t in range(frames):
            clips[n, n % 3, t, 8:20, t : t + 10] = 0.9
    return clips


def embedded_videos(html: str, folder) -> list[np.ndarray]:
    videos = []
    for index, data in enumerate(re.findall(r'src="data:video/mp4;base64,([^"]+)"', html)):
        path = folder / f"{index}.mp4"
        path.write_bytes(base64.b64decode(data))
        videos.append(read_video(path))
    return videos


def test_player_embeds_decodable_mp4(tmp_path):
    clips = moving_clips(6)
    html = media.player(clips, titles=[f"<clip {n}>" for n in range(6)]).data
    first, second = embedded_videos(html, tmp_path)  # rows of four and two
    assert first.shape == (9, 32, 4 * 34 - 2, 3) and second.shape == (9, 32, 2 * 34 - 2, 3)
    # H.264 with subsampled colour: the mean error of flat squares stays a few grey levels.
    assert np.abs(first[:, :, :32].astype(int) - media.tile(clips[:1])).mean() < 8
    assert "&lt;clip 5&gt;" in html and "<clip" not in html
    assert all(word in html for word in ("autoplay", "loop", "muted", "playsinline", "controls"))


def test_player_gives_way_in_quality_then_refuses(monkeypatch):
    clips = torch.rand(4, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    best = len(media.player(clips).data)
    monkeypatch.setattr(media, "EMBED_LIMIT", best // 2)
    assert len(media.player(clips).data) < best
    monkeypatch.setattr(media, "EMBED_LIMIT", 100)
    with pytest.raises(ParameterError, match="show fewer or smaller"):
        media.player(clips)


def test_tile_places_clips_row_by_row():
    clips = torch.stack([torch.full((3, 1, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    grid = media.tile(clips, columns=2)
    assert grid.shape == (1, 10, 10, 3)
    assert [grid[0, y, x, 0] for y, x in ((0, 0), (0, 6), (6, 0), (6, 6))] == [0, 128, 255, 255]


def test_strip_shows_first_and_last_frame():
    fig = media.frame_strip(moving_clips(), titles=["one", "two"], frames=4)
    first, last = fig.axes
    assert first.get_title(loc="left") == "one"
    assert [label.get_text() for label in last.get_xticklabels()] == ["frame 0", "frame 3", "frame 5", "frame 8"]
    picture = first.images[0].get_array()
    assert np.array_equal(picture[:, :32], media.tile(moving_clips(1))[0])
    plt.close(fig)


def test_mp4_and_webp_files(tmp_path):
    expected = media.side_by_side(moving_clips(2))
    assert np.array_equal(expected[:, :, 32:], media.tile(moving_clips(2)[1:]))
    (tmp_path / "clip.mp4").write_bytes(media.mp4_bytes(expected, 18))
    assert read_video(tmp_path / "clip.mp4").shape == (9, 32, 64, 3)
    with Image.open(io.BytesIO(media.webp_bytes(expected))) as picture:
        assert (picture.size, picture.n_frames, picture.info["loop"]) == ((64, 32), 9, 0)
        for index, frame in enumerate(ImageSequence.Iterator(picture)):
            # lossy with subsampled colour: flat squares stay within a few grey levels on average
            assert np.abs(np.asarray(frame.convert("RGB"), dtype=int) - expected[index]).mean() < 8
            assert picture.info["duration"] == 125  # known once a frame is decoded


def test_wrong_shapes_and_titles_are_explained():
    with pytest.raises(ParameterError, match=r"got \(3, 9, 32, 32\)"):
        media.player(moving_clips()[0])
    with pytest.raises(ParameterError, match="expected 2 titles"):
        media.frame_strip(moving_clips(), titles=["one"])
    with pytest.raises(ParameterError, match="at least one"):
        media.tile([])
