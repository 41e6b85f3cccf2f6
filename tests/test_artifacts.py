"""Artefacts are whole or absent, found in the right order, and corruption is named."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from mobivid_core import artifacts, files
from mobivid_core.errors import CheckpointError, ProfileError, RunError


class TinyModel(ModelMixin, ConfigMixin):
    """One linear layer: the least that can be saved."""

    @register_to_config
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)


@pytest.fixture()
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(artifacts, "checkpoints_dir", lambda: folder)
    return folder


def _publish(stage: str, text: str = "x") -> None:
    with artifacts.publish(stage, "smoke") as folder:
        (folder / "plan.json").write_text(text)


def test_a_run_artefact_is_preferred_to_the_shipped_one(runs: Path, shipped: Path) -> None:
    (shipped / "plan").mkdir(parents=True)
    (shipped / "plan" / "plan.json").write_text("shipped")
    artifacts.write_stamp(shipped / "plan", "plan")
    found = artifacts.find("plan", "smoke")
    assert found.origin == "shipped" and "shipped checkpoint" in artifacts.describe(found)
    _publish("plan")
    found = artifacts.find("plan", "smoke")
    assert (found.origin, found.path) == ("run", runs / "smoke" / "artifacts" / "plan")
    assert found.digest[:8] in artifacts.describe(found)


def test_a_missing_artefact_says_what_makes_it(runs: Path, shipped: Path) -> None:
    with pytest.raises(CheckpointError, match="--profile smoke --only 04` or by running notebooks/04_tri_level"):
        artifacts.find("plan", "smoke")
    with pytest.raises(CheckpointError, match="unknown stage 'plam'; the stages are vae, judge"):
        artifacts.find("plam", "smoke")
    with pytest.raises(ProfileError):
        artifacts.find("plan", "tiny")


def test_a_failed_publish_leaves_the_old_artefact_and_no_rubbish(runs: Path, shipped: Path) -> None:
    _publish("plan", "good")
    with pytest.raises(ZeroDivisionError), artifacts.publish("plan", "smoke") as folder:
        (folder / "plan.json").write_text("half")
        _ = 1 / 0
    folder = runs / "smoke" / "artifacts"
    assert (folder / "plan" / "plan.json").read_text() == "good"
    assert [p.name for p in folder.iterdir()] == ["plan"]


def test_a_full_disk_is_one_clear_error(runs: Path) -> None:
    with pytest.raises(RunError, match="no space left on the disk while writing the plan artefact"):
        with artifacts.publish("plan", "smoke"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not (runs / "smoke" / "artifacts" / "plan").exists()


def test_publishing_nothing_is_refused(runs: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no file"), artifacts.publish("plan", "smoke"):
        pass


def test_changed_and_lost_files_are_noticed(runs: Path, shipped: Path) -> None:
    _publish("plan")
    folder = runs / "smoke" / "artifacts" / "plan"
    artifacts.verify(folder)
    (folder / "plan.json").write_text("y")
    with pytest.raises(CheckpointError, match="plan.json is corrupt: its SHA-256 starts"):
        artifacts.verify(folder)
    (folder / "plan.json").unlink()
    with pytest.raises(CheckpointError, match="lacks plan.json"):
        artifacts.find("plan", "smoke")
    (folder / artifacts.STAMP).write_text("{")
    with pytest.raises(CheckpointError, match="COMPLETE.json cannot be read"):
        artifacts.find("plan", "smoke")


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0.0), (torch.float16, 1e-3)])
def test_models_survive_a_round_trip(tmp_path: Path, dtype: torch.dtype | None, tolerance: float) -> None:
    # float16 keeps 11 bits: weights of size 0.5 come back within 2.5e-4.
    model = TinyModel(width=3)
    artifacts.save_model(model, tmp_path / "model", dtype=dtype)
    loaded = artifacts.load_model(TinyModel, tmp_path / "model")
    assert loaded.layer.weight.dtype == torch.float32 and not loaded.training
    torch.testing.assert_close(loaded.layer.weight, model.layer.weight, atol=tolerance, rtol=0)
    again = TinyModel.from_pretrained(tmp_path / "model")  # diffusers reads the same files
    assert again.config.width == 3


def test_broken_checkpoints_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(CheckpointError, match="no config.json"):
        artifacts.load_model(TinyModel, folder)
    artifacts.save_model(TinyModel(), folder)
    artifacts.write_stamp(folder, "vae")
    weights = folder / artifacts.WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-3])
    with pytest.raises(CheckpointError, match="is corrupt: its SHA-256"):
        artifacts.load_model(TinyModel, folder)
    (folder / artifacts.STAMP).unlink()
    with pytest.raises(CheckpointError, match="is truncated or corrupt"):
        artifacts.load_model(TinyModel, folder)
    weights.write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"width": 5}))
    with pytest.raises(CheckpointError, match="does not fit TinyModel"):
        artifacts.load_model(TinyModel, folder)


def test_a_model_in_a_folder_below_the_stamp_is_checked_too(tmp_path: Path) -> None:
    artifacts.save_model(TinyModel(), tmp_path / "teacher" / "transformer")
    artifacts.write_stamp(tmp_path / "teacher", "teacher")
    weights = tmp_path / "teacher" / "transformer" / artifacts.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match="is corrupt"):
        artifacts.load_model(TinyModel, tmp_path / "teacher" / "transformer")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert files.read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_read_only_place_is_one_clear_error() -> None:
    with pytest.raises(RunError, match="cannot be written .* set MOBIVID_RUNS"), files.disk_errors("figures/a.png"):
        raise OSError(errno.EROFS, "Read-only file system")
