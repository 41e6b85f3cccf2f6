"""The folder that a phone app needs: packages, the host's small tables, and a manifest with hashes.

Paper: the on-device section (text encoder, four transformer steps, light decoder). `app` holds the loop over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core import artifacts
from mobivid_core.coreml.steps import host_modulation
from mobivid_core.coreml.verify import Verification
from mobivid_core.errors import CheckpointError
from mobivid_core.files import read_json, write_bytes, write_json
from mobivid_core.flow.sampling import textbook_sigmas
from mobivid_core.models.dit import MobiVidTransformer3DModel

MANIFEST = "manifest.json"
TABLES = "timestep_tables.safetensors"
#: Steps of the mobile model (data/paper claim C03), for a checkpoint that does not say.
STEPS = 4


@dataclass(frozen=True)
class Generator:
    """The transformer that goes onto the phone."""

    model: MobiVidTransformer3DModel
    sigmas: list[float]  # noise levels of its steps, without the final 0
    source: str  # one line that says where it comes from
    distilled: bool  # true for a student made for these few steps; a teacher only stands in for it


def load_generator(profile: str) -> Generator:
    """The distilled student of a profile, else its teacher; where neither exists, an error says what makes them."""
    from mobivid_core.distill.student import CARD

    try:
        artifact = artifacts.find("student", profile)
    except CheckpointError:
        artifact = artifacts.find("teacher", profile)
    card = read_json(artifact.path / CARD, {})
    # A card may list the final 0 of the grid; the app adds it itself.
    sigmas = [s for s in card.get("sigmas", textbook_sigmas(STEPS)) if s > 0]
    model = artifacts.load_model(MobiVidTransformer3DModel, artifact.path)
    return Generator(model, sigmas, artifacts.describe(artifact), artifact.stage == "student")


def timestep_tables(model: MobiVidTransformer3DModel, sigmas: Sequence[float]) -> dict[str, Tensor]:
    """What the host keeps: `sigmas` (n + 1,) with the final 0, `modulation` (n, 6 * blocks + 2, hidden)."""
    modulation = host_modulation(model, 1000 * torch.tensor(sigmas, dtype=torch.float32))
    return {"sigmas": torch.tensor([*sigmas, 0.0]), "modulation": modulation}


def write_bundle(
    folder: Path, verifications: Sequence[Verification], tables: dict[str, Tensor] | None, *, source: str,
    runs: Mapping[str, int], frames: int,
) -> Path:  # fmt: skip
    """Write `timestep_tables`, if any, and a manifest beside the packages already in `folder`; returns the manifest.

    The manifest says where the weights come from (`source`), and how often an app calls each package, by file name, for
    one clip of so many `frames` (`runs`).
    """
    from safetensors.torch import save

    if tables is not None:
        write_bytes(folder / TABLES, save({name: t.contiguous() for name, t in tables.items()}))
    entries = {
        v.package.path.name: {
            "sha256": v.package.digest, "parameters": v.package.params, "megabytes": round(v.package.megabytes, 3),
            "operations": v.package.ops, "fp32_relative_error": v.fp32_error, "fp16_relative_error": v.fp16_error,
            "torch_fp16_relative_error": v.torch_half_error, "weight_bits": v.bits,
            "gates_passed": v.passed, "runs_a_clip": runs[v.package.path.name],
        }
        for v in verifications
    }  # fmt: skip
    made_with = {name: version(name) for name in ("coremltools", "torch", "numpy")}
    write_json(folder / MANIFEST, {"packages": entries, "frames": frames, "source": source, "made_with": made_with})
    return folder / MANIFEST
