"""Shipped checkpoints damaged in any way: one error that names the file and the remedy, never other numbers."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mobivid_core import artifacts
from mobivid_core.distill.student import load_student, shipped_student
from mobivid_core.errors import CheckpointError
from mobivid_core.evaluate.judge import Judge
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.pipeline import MobiVidPipeline
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import checkpoints_dir, data_dir, project_root

CLASSES = {
    "vae": MobiVidVAE,
    "judge": Judge,
    "teacher": MobiVidTransformer3DModel,
    "student": MobiVidTransformer3DModel,
}
REMEDY = "git checkout -- data/checkpoints"


@pytest.fixture()
def checkpoints(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with checkpoints of its own; everything else is a link."""
    root = tmp_path / "checkout"
    (root / "data").mkdir(parents=True)
    for part in data_dir().iterdir():
        if part.name != "checkpoints":
            (root / "data" / part.name).symlink_to(part)
    shutil.copytree(checkpoints_dir(), root / "data" / "checkpoints")
    monkeypatch.setenv("MOBIVID_ROOT", str(root))
    return root / "data" / "checkpoints"


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _narrow(file: Path) -> None:
    """A valid configuration of another model."""
    config = json.loads(file.read_text())
    name = next(k for k, v in config.items() if isinstance(v, int) and not isinstance(v, bool) and v > 1)
    file.write_text(json.dumps(config | {name: config[name] + 1}))


DAMAGES = [
    (artifacts.WEIGHTS, _flip),
    (artifacts.WEIGHTS, _truncate),
    (artifacts.WEIGHTS, _empty),
    (artifacts.WEIGHTS, Path.unlink),
    ("config.json", _narrow),
    ("config.json", _truncate),
    ("config.json", Path.unlink),
    (artifacts.STAMP, _truncate),
    (artifacts.STAMP, _empty),
    (artifacts.STAMP, Path.unlink),
]


@pytest.mark.parametrize("stage", CLASSES)
@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=lambda x: getattr(x, "__name__", x))
def test_a_damaged_checkpoint_is_named_with_the_remedy(
    checkpoints: Path, stage: str, name: str, damage: Callable[[Path], None]
) -> None:
    damage(checkpoints / stage / name)
    with pytest.raises(CheckpointError) as caught:
        artifacts.load_model(CLASSES[stage], checkpoints / stage)
    assert name in str(caught.value) and stage in str(caught.value) and REMEDY in str(caught.value)
    with pytest.raises(CheckpointError, match=REMEDY):  # what a notebook does
        artifacts.load_model(CLASSES[stage], artifacts.find(stage, "smoke").path)


@pytest.mark.parametrize("stage", CLASSES)
def test_a_checkpoint_in_the_place_of_another_or_of_none_is_refused(checkpoints: Path, stage: str) -> None:
    shutil.rmtree(checkpoints / stage)
    with pytest.raises(CheckpointError, match=rf"no '{stage}' artefact.*{REMEDY}"):
        artifacts.find(stage, "smoke")
    with pytest.raises(CheckpointError, match=REMEDY):
        artifacts.load_model(CLASSES[stage], checkpoints / stage)
    other = "judge" if stage != "judge" else "vae"
    shutil.copytree(checkpoints / other, checkpoints / stage)
    with pytest.raises(CheckpointError, match=REMEDY):
        artifacts.load_model(CLASSES[stage], checkpoints / stage)


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink])
def test_a_student_without_its_card_is_never_sampled_as_a_teacher(checkpoints: Path, damage: Callable) -> None:
    damage(checkpoints / "student" / "distilled.json")
    for load in (lambda: MobiVidPipeline.from_shipped("student"), lambda: load_student(checkpoints / "student")):
        with pytest.raises(CheckpointError, match=rf"distilled\.json.*{REMEDY}"):
            load()


def test_a_student_without_its_stamp_is_not_taken_for_none(checkpoints: Path) -> None:
    (checkpoints / "student" / artifacts.STAMP).unlink()
    with pytest.raises(CheckpointError, match=REMEDY):
        shipped_student()


def test_a_kept_file_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    from safetensors.torch import save

    kept = tmp_path / "kept.safetensors"
    assert read_tensors(kept) is None
    write_bytes(kept, save({"x": torch.arange(100)}))
    assert read_tensors(kept)["x"].tolist() == list(range(100))
    whole = kept.read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        kept.write_bytes(whole[:length])
        assert read_tensors(kept) is None


def _unpickling(tree: ast.Module) -> list[int]:
    """Lines that import a pickling module, or call `torch.load` or `numpy.load` in a way that may unpickle."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            if {n.split(".")[0] for n in names} & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}:
                lines.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            owner = getattr(node.func.value, "id", "")
            if (owner, node.func.attr) == ("torch", "save"):
                lines.append(node.lineno)
            if (owner, node.func.attr) == ("torch", "load") and given.get("weights_only") is not True:
                lines.append(node.lineno)
            if node.func.attr == "load" and given.get("allow_pickle"):
                lines.append(node.lineno)
    return lines


def test_nothing_in_the_project_unpickles() -> None:
    """One file of another package is a pickle of tensors: `weights_only` reads nothing else from it."""
    for text in ("import pickle", "torch.save(x, y)", "torch.load(p)", "np.load(p, allow_pickle=True)"):
        assert _unpickling(ast.parse(text)), text
    loads = {}
    for path in sorted((project_root() / "mobivid_core").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert not _unpickling(ast.parse(source)), path
        if "torch.load(" in source:
            loads[path.name] = source.count("torch.load(")
    assert loads == {"image_features.py": 1}
    for path in sorted((project_root() / "notebooks").glob("*.ipynb")):
        code = path.read_text(encoding="utf-8")
        assert "torch.load(" not in code and "import pickle" not in code, path
