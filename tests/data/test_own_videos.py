"""Your own captioned videos: clips keep their captions, in a folder and in shards; what is skipped is named."""

import io
import sys
import tarfile

import numpy as np
import pytest
import torch

from mobivid_core.data.captioned import captioned_clips
from mobivid_core.data.folder import FolderReport
from mobivid_core.data.latents import captioned_latents
from mobivid_core.data.video_io import write_video
from mobivid_core.errors import ParameterError, VideoError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.text import encode_text
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.train.teacher import train_teacher

SIZE = dict(frames=9, size=32)
GREYS = {"dark.mp4": 40, "sub/light.mp4": 210}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two plain videos of 20 frames that differ in brightness, a short one, one without a caption."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    for name, grey in GREYS.items():
        write_video(folder / name, np.full((20, 32, 32, 3), grey, np.uint8))
    write_video(folder / "short.mp4", np.zeros((3, 32, 32, 3), np.uint8))
    write_video(folder / "silent.mp4", np.zeros((20, 32, 32, 3), np.uint8))
    rows = ["dark.mp4,a dark picture", "sub/light.mp4,a light picture", "sub/light.mp4,something bright"]
    rows += ["short.mp4,over soon", "gone.mp4,not there"]
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(rows) + "\n", encoding="utf-8-sig")
    return folder


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return MobiVidVAE(latent_channels=4, width=4).eval()


def test_clips_keep_their_captions_and_skipped_files_their_reasons(folder):
    report = FolderReport(folder)
    found = {video.name: video for video in captioned_clips(folder, report, **SIZE)}
    assert {name: video.captions for name, video in found.items()} == {
        "dark.mp4": ("a dark picture",),
        "sub/light.mp4": ("a light picture", "something bright"),
    }
    for name, grey in GREYS.items():
        assert found[name].clips.shape == (2, 9, 32, 32, 3)
        assert np.abs(found[name].clips.astype(int) - grey).max() <= 4  # lossy codec
    reasons = {skipped.name: skipped.reason for skipped in report.skipped}
    assert reasons["silent.mp4"] == "no row in captions.csv"
    assert reasons["gone.mp4"] == "named in captions.csv, but there is no such file"
    assert "3 frames" in reasons["short.mp4"] and len(reasons) == 3


def test_latents_go_with_text_and_train_a_teacher(folder, vae):
    data, report = captioned_latents(vae, folder, **SIZE)
    assert len(data) == 4 and sum(file.clips for file in report.used) == 4
    latents, text, mask = data.batch(torch.tensor([0, 3]))
    states, real = encode_text(["a dark picture", "a light picture"], max_length=text.shape[1])
    assert torch.equal(mask, real)
    torch.testing.assert_close(text, states, atol=2e-3, rtol=2e-3)  # kept as float16
    assert not torch.allclose(latents[0], latents[1])
    sizes = DiTConfig.uniform(blocks=1, heads=2, ffn=16, hidden=16, head_dim=8, in_channels=4, text_dim=384)
    _, result = train_teacher(data, sizes, steps=2, batch=2, progress=False)
    assert len(result.log) == 2


def test_shards_give_what_the_folder_gives(folder, tmp_path, vae):
    pytest.importorskip("webdataset")
    captions = {"dark.mp4": b"a dark picture", "sub/light.mp4": b"a light picture", "silent.mp4": None}
    with tarfile.open(tmp_path / "shard-000.tar", "w") as tar:
        for name, words in captions.items():
            key = name.removesuffix(".mp4")
            for part, content in {f"{key}.mp4": (folder / name).read_bytes(), f"{key}.txt": words}.items():
                if content is not None:
                    info = tarfile.TarInfo(part)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    sharded, report = captioned_latents(vae, tmp_path, **SIZE)
    plain, _ = captioned_latents(vae, folder, **SIZE)
    assert torch.equal(sharded.latents, plain.latents)
    assert [skipped.reason for skipped in report.skipped] == ["no caption"]


def test_what_is_missing_is_said(folder, tmp_path, vae, monkeypatch):
    with pytest.raises(ParameterError, match="holds neither captions.csv.*nor .tar shards"):
        captioned_latents(vae, tmp_path, **SIZE)
    with pytest.raises(ParameterError, match="elsewhere: no such folder"):
        captioned_latents(vae, tmp_path / "elsewhere", **SIZE)
    (tmp_path / "captions.csv").write_text("name,text\n")
    with pytest.raises(ParameterError, match="needs the columns file and caption, got name, text"):
        captioned_latents(vae, tmp_path, **SIZE)
    (tmp_path / "captions.csv").write_text("file,caption\ngone.mp4,x\n")
    with pytest.raises(VideoError, match="gone.mp4: named in captions.csv, but there is no such file"):
        captioned_latents(vae, tmp_path, **SIZE)
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "a.tar").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ParameterError, match="pip install webdataset"):
        captioned_latents(vae, tmp_path, **SIZE)
