"""The distilled student as an artefact: an ordinary transformer with its steps and guidance.

Paper: four unguided steps (claims C03, C23). The weights are saved as any `MobiVidTransformer3DModel`; beside them
`distilled.json` says steps, guidance, solver and noise levels; a pipeline warns when asked for other steps or guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobivid_core.artifacts import STAMP, load_model, save_model, shipped_path, verify_file
from mobivid_core.distill.trajectory import STUDENT_STEPS, student_sigmas
from mobivid_core.errors import CheckpointError
from mobivid_core.files import read_json, write_json
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.sampler import Sampler

#: File beside the student's weights.
CARD = "distilled.json"
#: How a student is sampled.
FOUR_STEPS = Sampler("euler", STUDENT_STEPS)
#: Artefacts that are four-step students: of the pruned model, and of the teacher as it is.
STUDENTS = ("student", "distilled")


def save_student(
    student: nn.Module,
    folder: Path,
    recipe: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    earlier: Sequence[dict[str, Any]] = (),
) -> None:
    """Write weights, config and `distilled.json`: how to sample, the last round's recipe, and those `earlier`.

    `dtype` as in `artifacts.save_model`.
    """
    save_model(student, folder, dtype)
    how = {"steps": STUDENT_STEPS, "guidance": 1.0, "solver": "euler", "sigmas": student_sigmas().tolist()}
    write_json(Path(folder) / CARD, how | {"recipe": recipe or {}, "earlier": list(earlier)})


def load_student(folder: Path) -> tuple[MobiVidTransformer3DModel, dict[str, Any]]:
    """A saved student and its card; a CheckpointError if weights or card are missing or corrupt."""
    if not (folder / CARD).is_file() and not (folder / STAMP).is_file():
        raise CheckpointError(
            f"{folder} has no {CARD}, so it is not a distilled student; make one with notebook "
            "05_adversarial_distillation or `mobivid distill`"
        )
    card = read_json(verify_file(folder, CARD))
    return load_model(MobiVidTransformer3DModel, folder), card


def shipped_student(stage: str = "student") -> tuple[MobiVidTransformer3DModel, dict[str, Any]]:
    """One of `STUDENTS` that the project ships, with its card."""
    return load_student(shipped_path(stage))
