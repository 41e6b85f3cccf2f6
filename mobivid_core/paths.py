"""Where things lie. Every path derives from the project root, never from the working directory,
so that a notebook behaves the same in JupyterLab, under papermill and from any folder."""

from __future__ import annotations

import os
from pathlib import Path

from mobivid_core.errors import MobiVidError

_SHIPPED_RESULTS = ("laptop",)


def project_root() -> Path:
    """Folder that holds `notebooks/` and `data/`.

    Returns:
        `$MOBIVID_ROOT` if set, else the folder above the installed package (an editable install).

    Raises:
        MobiVidError: The folder found holds no `data/paper`, so it is not a MobiVid checkout.
    """
    root = Path(os.environ.get("MOBIVID_ROOT") or Path(__file__).resolve().parents[1])
    if not (root / "data" / "paper").is_dir():
        raise MobiVidError(
            f"no MobiVid checkout at {root} (it has no data/paper folder). Install from a clone with "
            "`pip install -e .`, or set MOBIVID_ROOT to the clone's folder."
        )
    return root


def data_dir() -> Path:
    """Shipped inputs: clips, sprites, backgrounds, published numbers, checkpoints."""
    return project_root() / "data"


def checkpoints_dir() -> Path:
    """Shipped checkpoints: one folder a stage, safetensors and config."""
    return data_dir() / "checkpoints"


def notebooks_dir() -> Path:
    """The ordered notebooks."""
    return project_root() / "notebooks"


def runs_dir(profile: str) -> Path:
    """Artefacts made by runs at `profile` (not in git). `$MOBIVID_RUNS` moves the parent folder."""
    parent = Path(os.environ.get("MOBIVID_RUNS") or project_root() / "runs")
    return parent / profile


def figures_dir(profile: str) -> Path:
    """Where `profile` leaves its tables and figures.

    Only the default profile writes the committed `figures/`: a smoke run must never overwrite
    results that mean something, so the others write `runs/<profile>/figures/`.
    """
    if profile in _SHIPPED_RESULTS and not os.environ.get("MOBIVID_RUNS"):
        return project_root() / "figures"
    return runs_dir(profile) / "figures"
