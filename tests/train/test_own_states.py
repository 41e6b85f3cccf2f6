"""Training on own videos, then on others: no state, log or model of one data set is taken up by the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mobivid_core.artifacts import publish, save_model
from mobivid_core.data.video_io import write_video
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile
from mobivid_core.train.publish import main
from mobivid_core.train.state import folder_for


def test_a_folder_belongs_to_one_content(tmp_path: Path) -> None:
    data, captions = torch.arange(24).view(2, 3, 4).half(), torch.arange(2)
    first = folder_for(tmp_path, data, captions)
    assert first == folder_for(tmp_path, data.clone(), captions) and first.parent == tmp_path
    others = [(data + 1, captions), (data, captions.flip(0)), (data.view(3, 2, 4), captions), (data.float(), captions)]
    assert len({first, *(folder_for(tmp_path, *other) for other in others)}) == 5


def _videos(folder: Path, grey: int) -> Path:
    folder.mkdir()
    for k in range(2):
        ramp = (grey + 20 * k + np.arange(20)[:, None, None, None] * np.ones((1, 64, 64, 3))).astype(np.uint8)
        write_video(folder / f"{k}.mp4", ramp)
    (folder / "captions.csv").write_text("file,caption\n0.mp4,one\n1.mp4,two\n")
    return folder


@pytest.mark.parametrize("stage", ["vae", "teacher"])
def test_other_videos_get_a_training_of_their_own(tmp_path: Path, monkeypatch, stage: str) -> None:
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path / "runs"))
    with publish("vae", "smoke") as own:  # what the smoke teacher needs; the shipped one has more channels
        save_model(MobiVidVAE(latent_channels=get_profile("smoke").vae_channels, width=4), own)
    place = tmp_path / "runs" / "smoke" / "training" / f"{stage}-own"

    def weights(data: Path) -> dict[str, torch.Tensor]:
        assert main([stage, "--profile", "smoke", "--steps", "1", "--data", str(data)]) == 0
        return load_file(next((place / "model").glob("*.safetensors")))

    bright, dark = _videos(tmp_path / "bright", 140), _videos(tmp_path / "dark", 70)
    first = weights(bright)
    second = weights(dark)
    states = sorted(place.glob("*/state.safetensors"))
    assert len(states) == 2 and len(list(place.glob("*/model/*.safetensors"))) == 2
    assert any(not torch.equal(first[name], second[name]) for name in first)
    again = weights(bright)  # goes on from its own state, which is complete
    assert sorted(place.glob("*/state.safetensors")) == states
    assert all(torch.equal(first[name], again[name]) for name in first)
