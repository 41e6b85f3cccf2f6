"""Folders and settings shared by the stages of a GPU run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from mobivid_core.artifacts import load_model
from mobivid_core.data.latents import LatentDataset
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import Profile

#: A number of steps that no time slice reaches: the seconds end a stage.
ENDLESS = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where a GPU run lives, and at what sizes.

    Attributes:
        root: Its folder.
        profile: Sizes.
        device: Where to compute.
        clips: Captioned clips that the diffusion model trains on.
        trajectories: Teacher trajectories that the students train on.
        batch: Clips of a step of the teacher.
    """

    root: Path
    profile: Profile
    device: torch.device
    clips: int = 98_304
    trajectories: int = 65_536
    batch: int = 768

    @property
    def fast(self) -> bool:
        """Whether compiling and bfloat16 pay: on a GPU."""
        return self.device.type != "cpu"

    @property
    def teacher_steps(self) -> int:
        """Solver steps of the teacher's trajectories."""
        return 16 if self.fast else 4

    def model(self, name: str) -> MobiVidTransformer3DModel:
        """A saved transformer of this run."""
        return load_model(MobiVidTransformer3DModel, self.root / name).to(self.device)

    def vae(self, name: str = "vae") -> MobiVidVAE:
        """A saved VAE of this run."""
        return load_model(MobiVidVAE, self.root / name).to(self.device).eval()

    def log(self, name: str, rows: list[dict]) -> None:
        """Keep a stage's log."""
        pd.DataFrame(rows).to_csv(self.root / name / "log.csv", index=False, lineterminator="\n")


def dataset(place: Place, name: str = "vae", split: str = "train") -> LatentDataset:
    """The encoded clips of `latents`, on the device."""
    stored = load_file(place.root / f"{name}-{split}.safetensors", device=str(place.device))
    return LatentDataset(labels=[], **stored)
