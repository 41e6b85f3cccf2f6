"""Artefacts passed between stages: checkpoints, scores, plans, packages.

A stage's artefact is a folder. It is written beside its place, stamped with the hashes of its files
and moved there in one step, so that a later stage never reads a half-written one. Any notebook can
run alone: `find` gives the run's artefact, else the one shipped with the project, and says which.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mobivid_core.errors import CheckpointError
from mobivid_core.files import clear_leftovers, disk_errors, sha256, tree_hashes, write_bytes, write_json
from mobivid_core.paths import checkpoints_dir, project_root, runs_dir
from mobivid_core.profiles import get_profile

if TYPE_CHECKING:
    import torch

STAGES = ("vae", "judge", "teacher", "sensitivity", "plan", "pruned", "student", "distilled", "coreml")
STAMP = "COMPLETE.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
#: Suffixes of weight files that this project never opens.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

#: The notebook that makes each stage's artefact, for messages.
MADE_BY = {
    "vae": "01_vae_compression",
    "judge": "02_server_dit",
    "teacher": "02_server_dit",
    "sensitivity": "03_sensitivity_analysis",
    "plan": "04_tri_level_pruning",
    "pruned": "04_tri_level_pruning",
    "student": "05_adversarial_distillation",
    "distilled": "05_adversarial_distillation",
    "coreml": "06_iphone_benchmark",
}

Model = TypeVar("Model", bound="torch.nn.Module")


@dataclass(frozen=True)
class Artifact:
    """One stage's finished output."""

    stage: str  # one of `STAGES`
    path: Path  # folder that holds it
    origin: str  # "run" if made here, "shipped" if it came with the project

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the stamped file hashes: changes when any file's content changes."""
        text = json.dumps(read_stamp(self.path)["files"], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise CheckpointError(f"unknown stage {stage!r}; the stages are {', '.join(STAGES)}")


def run_path(stage: str, profile: str) -> Path:
    """Where a run at `profile` keeps the artefact of `stage`, whether or not it is there."""
    _check_stage(stage)
    return runs_dir(get_profile(profile).name) / "artifacts" / stage


def shipped_path(stage: str) -> Path:
    """Where the project ships the artefact of `stage`, whether or not it does."""
    _check_stage(stage)
    return checkpoints_dir() / stage


def read_stamp(folder: Path) -> dict:
    """The stamp of a folder, `{"stage": ..., "files": {relative path: sha256}}`, or a CheckpointError."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        stamp["files"].items()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has no {STAMP}: it is missing or was only half written; {_remedy(folder)}"
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / STAMP} cannot be read ({error}); {_remedy(folder)}") from error
    return stamp


def write_stamp(folder: Path, stage: str) -> None:
    """Stamp a finished folder with the hashes of its files (used for shipped checkpoints too)."""
    _check_stage(stage)
    files = {name: digest for name, digest in tree_hashes(folder).items() if name != STAMP}
    if not files:
        raise CheckpointError(f"the artefact of stage {stage!r} in {folder} holds no file: nothing to publish")
    write_json(folder / STAMP, {"stage": stage, "files": files})


def verify(folder: Path) -> None:
    """Compare every file with the stamp; a CheckpointError names one that is missing or has another content."""
    for name in read_stamp(folder)["files"]:
        verify_file(folder, name)


def verify_file(folder: Path, name: str) -> Path:
    """Path of a file in a folder; a CheckpointError if it is missing, or not as a stamp has it that lists it.

    The stamp is the folder's, or that of the artefact folder around it.
    """
    file, base = folder / name, next((b for b in (folder, folder.parent) if (b / STAMP).is_file()), None)
    if (
        base is None and checkpoints_dir() in folder.parents
    ):  # unchecked weights would give other numbers without a word
        raise CheckpointError(f"{folder} lacks its {STAMP}; {_remedy(folder)}")
    expected = base and read_stamp(base)["files"].get(file.relative_to(base).as_posix())
    if not file.is_file():
        missing = f"{file} is missing though {STAMP} lists it" if expected else f"no {name} in {folder}"
        raise CheckpointError(f"{missing}; {_remedy(base or folder)}")
    found = sha256(file) if expected else None
    if found != expected:
        raise CheckpointError(
            f"{file} is corrupt: its SHA-256 starts {found[:12]}, expected {expected[:12]}; {_remedy(base)}"
        )
    return file


def _remedy(folder: Path) -> str:
    if checkpoints_dir() in folder.parents or folder == checkpoints_dir():
        return "restore it with `git checkout -- data/checkpoints`"
    return f"delete {folder} and run the notebook that makes it again"


def find(stage: str, profile: str) -> Artifact:
    """The artefact of `stage`: the run's own at this profile if there is a complete one, else the shipped one.

    CheckpointError where neither exists, or a file that the stamp lists is gone.
    """
    ours, shipped = run_path(stage, profile), shipped_path(stage)
    for path, origin in ((ours, "run"), (shipped, "shipped")):
        if (path / STAMP).is_file():
            gone = [name for name in read_stamp(path)["files"] if not (path / name).is_file()]
            if gone:
                raise CheckpointError(f"{path} lacks {', '.join(gone)}; {_remedy(path)}")
            return Artifact(stage, path, origin)
    if shipped.is_dir():
        raise CheckpointError(f"the shipped checkpoint {_short(shipped)} lacks its {STAMP}; {_remedy(shipped)}")
    raise CheckpointError(
        f"no {stage!r} artefact: looked in {_short(ours)} and {_short(shipped)}. "
        f"Make it with `mobivid reproduce --profile {profile} --only {MADE_BY[stage][:2]}` "
        f"or by running notebooks/{MADE_BY[stage]}.ipynb."
    )


@contextlib.contextmanager
def publish(stage: str, profile: str) -> Iterator[Path]:
    """Write a stage's artefact: yields an empty folder that takes its place only if nothing raised.

    CheckpointError where nothing was written into it; for a full or read-only disk see `disk_errors`.
    """
    target = run_path(stage, profile)
    with disk_errors(f"the {stage} artefact in {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{stage}-", dir=target.parent, ignore_cleanup_errors=True) as name:
            temporary = Path(name)
            yield temporary
            write_stamp(temporary, stage)
            temporary.chmod(0o755)
            old = temporary.with_name(temporary.name + "-old")
            if target.exists():
                # A folder cannot be replaced in one step: between these two moves a reader finds
                # nothing here, which is an honest state, never a mixture; `restore` undoes the first after a kill.
                target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old, ignore_errors=True)


def restore(profile: str) -> None:
    """Put back an artefact that a killed publication had moved away, and clear half-written ones of another day."""
    folder = runs_dir(get_profile(profile).name) / "artifacts"
    for old in folder.glob(".*-old"):
        target = folder / old.name[1:].split("-")[0]
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    clear_leftovers(folder)


def describe(artifact: Artifact) -> str:
    """One line: which artefact this is, where it lies and its hash."""
    origin = "shipped checkpoint" if artifact.origin == "shipped" else "made by this project's run"
    return f"{artifact.stage}: {origin} {_short(artifact.path)} (sha {artifact.digest[:8]})"


def _short(path: Path) -> str:
    root = project_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def save_model(model: torch.nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Save a diffusers-style model as `config.json` and safetensors; `dtype` converts floating-point weights."""
    import torch
    from safetensors.torch import save

    with disk_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        model.save_config(folder)
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if dtype is not None:
        state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    write_bytes(folder / WEIGHTS, save(state, metadata={"format": "pt"}))


def load_model(cls: type[Model], folder: Path, variant: str | None = None) -> Model:
    """Load a model saved by `save_model` (or by diffusers' `save_pretrained`), in float32 and eval mode.

    If the folder, or the artefact folder around it, is stamped, both files are checked against the stamp first.
    `variant` is a name inside the weights' file name, e.g. "fp16", as `save_pretrained(variant=...)` writes it.
    CheckpointError where a file is missing, truncated or corrupt, or does not fit the class.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder, weights = Path(folder), WEIGHTS.replace(".", f".{variant}.") if variant else WEIGHTS
    for name in ("config.json", weights):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"no {name} in {folder}{_lying_there(folder) if name == weights else ''}: there is no {cls.__name__} "
                f"checkpoint; {_remedy(folder)}"
            )
        verify_file(folder, name)
    try:
        state = load_file(folder / weights)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder / weights} is truncated or corrupt ({error}); {_remedy(folder)}") from error
    state = {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in state.items()}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = cls.from_config(config)
        model.load_state_dict(state, strict=True)
    except Exception as error:  # a wrong config can fail anywhere in the model's building
        raise CheckpointError(
            f"the checkpoint in {folder} does not fit {cls.__name__}: {error}; {_remedy(folder)}"
        ) from error
    return model.eval()


def _lying_there(folder: Path) -> str:
    """What weights a folder holds instead of those that were looked for."""
    pickles = ", ".join(p.name for p in folder.glob("*") if p.suffix in PICKLES)
    others = ", ".join(sorted(p.name for p in folder.glob("*.safetensors")))
    if others:
        return f" (there is {others}: pass the name inside as variant=..., or none)"
    return f" ({pickles} is not read: pickles can run code)" if pickles else ""
