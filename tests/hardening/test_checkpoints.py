"""Damaged shipped checkpoints are named with their remedy, or loaded as they should be; pickles are never opened."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import mobivid_core
from mobivid_core import artifacts
from mobivid_core.distill.student import STUDENTS, load_student, shipped_student
from mobivid_core.errors import CheckpointError
from mobivid_core.measure.judge import Judge
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import data_dir, notebooks_dir
from mobivid_core.pipeline.pipeline import MobiVidPipeline

CLASSES = {
    "vae": MobiVidVAE,
    "judge": Judge,
    "teacher": MobiVidTransformer3DModel,
    "student": MobiVidTransformer3DModel,
    "distilled": MobiVidTransformer3DModel,
}
WEIGHTS = artifacts.WEIGHTS


@pytest.fixture()
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path) -> Path:
    """A checkout whose checkpoints may be damaged; everything else is linked."""
    source, root = data_dir(), tmp_path / "checkout"
    (root / "data").mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name != "checkpoints":
            (root / "data" / entry.name).symlink_to(entry)
    shutil.copytree(source / "checkpoints", root / "data" / "checkpoints")
    monkeypatch.setenv("MOBIVID_ROOT", str(root))
    return root / "data" / "checkpoints"


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _pickle(file: Path) -> None:
    file.rename(file.with_name("diffusion_pytorch_model.bin"))


def _other_config(file: Path) -> None:
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v + 1 if isinstance(v, int) else v for k, v in config.items()}))


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "flipped": (WEIGHTS, _flip, "is corrupt"),
    "truncated": (WEIGHTS, _truncate, "is corrupt"),
    "emptied": (WEIGHTS, lambda file: file.write_bytes(b""), "is corrupt"),
    "deleted": (WEIGHTS, Path.unlink, "no diffusion_pytorch_model.safetensors"),
    "pickled": (WEIGHTS, _pickle, r"diffusion_pytorch_model.bin is not read: pickles can run code"),
    "another config": ("config.json", _other_config, "config.json is corrupt"),
    "a torn config": ("config.json", lambda file: file.write_text("{"), "config.json is corrupt"),
    "no config": ("config.json", Path.unlink, "no config.json"),
    "a torn stamp": (artifacts.STAMP, lambda file: file.write_text("{"), "COMPLETE.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stage", CLASSES)
def test_a_damaged_shipped_checkpoint_is_named_with_its_remedy(copy: Path, stage: str, damage: str) -> None:
    name, spoil, says = DAMAGES[damage]
    spoil(copy / stage / name)
    with pytest.raises(CheckpointError, match=f"{says}.*git checkout -- data/checkpoints") as caught:
        artifacts.load_model(CLASSES[stage], copy / stage)
    assert str(copy / stage) in str(caught.value)


@pytest.mark.parametrize("stage", CLASSES)
@pytest.mark.parametrize("damage", ["truncated", "another config", "a torn config", "pickled"])
def test_without_a_stamp_the_files_themselves_are_checked(copy: Path, stage: str, damage: str) -> None:
    (copy / stage / artifacts.STAMP).unlink()
    name, spoil, _ = DAMAGES[damage]
    spoil(copy / stage / name)
    with pytest.raises(CheckpointError, match="git checkout -- data/checkpoints"):
        artifacts.load_model(CLASSES[stage], copy / stage)
    with pytest.raises(CheckpointError, match="lacks its COMPLETE.json; restore it with `git checkout"):
        artifacts.find(stage, "smoke")


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("{"), lambda file: file.write_text("[]")])
@pytest.mark.parametrize("stage", STUDENTS)
def test_a_student_without_its_card_is_never_sampled_as_a_teacher(
    copy: Path, damage: Callable[[Path], None], stage: str
) -> None:
    damage(copy / stage / "distilled.json")
    for load in (lambda: MobiVidPipeline.from_shipped(stage), lambda: load_student(copy / stage)):
        with pytest.raises(CheckpointError, match="distilled.json.*git checkout -- data/checkpoints"):
            load()


@pytest.mark.parametrize("stage", CLASSES)
def test_without_a_stamp_weights_are_not_loaded_unchecked(copy: Path, stage: str) -> None:
    (copy / stage / artifacts.STAMP).unlink()
    _flip(copy / stage / WEIGHTS)
    with pytest.raises(CheckpointError, match="lacks its COMPLETE.json; restore it with `git checkout"):
        artifacts.load_model(CLASSES[stage], copy / stage)


def test_a_student_without_its_stamp_is_not_taken_for_none(copy: Path) -> None:
    (copy / "student" / artifacts.STAMP).unlink()
    with pytest.raises(CheckpointError, match="lacks its COMPLETE.json"):
        shipped_student()


def test_a_missing_shipped_folder_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(CheckpointError, match="no config.json in .*vae.*git checkout -- data/checkpoints"):
        MobiVidPipeline.from_shipped()


#: Readers of the one file that an installed package ships as a pickle: only tensors are read from it.
TENSORS_ONLY = {"image_features.py", "pack.py"}


def test_nothing_unpickles() -> None:
    package = Path(mobivid_core.__file__).parent
    sources = {path.name: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    for path in notebooks_dir().glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path.name] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found = {name: _unpickling(source) for name, source in sources.items()}
    assert {name for name, calls in found.items() if calls} == TENSORS_ONLY
    assert all("weights_only=True" in call for name in TENSORS_ONLY for call in found[name])


def test_the_scan_for_pickles_sees_them() -> None:
    for source in ("import pickle", "from pickle import load", "torch.load(f)", "np.load(f, allow_pickle=True)",
                   "pd.read_pickle(f)", "import joblib"):  # fmt: skip
        assert _unpickling(source), source
    assert not _unpickling("np.load(f)\njson.load(f)\nimport json")


def _unpickling(source: str) -> list[str]:
    """Statements that could run a pickle's code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if {n.split(".")[0] for n in names} & {"pickle", "cloudpickle", "dill", "joblib"}:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            text = ast.unparse(node)
            if ast.unparse(node.func) in ("torch.load", "pd.read_pickle") or "allow_pickle=True" in text:
                found.append(text)
    return found
