"""Where things lie. Every path derives from the project root, never from the working directory,
so that a notebook behaves the same in JupyterLab, under papermill and from any folder.

A path that a user gives is the exception: it means what it means in the shell (`user_path`)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mobivid_core.errors import MobiVidError


def shell_dir() -> Path:
    """The folder in which the user's shell started this program.

    A kernel works in the notebook's folder, whatever started it; the program that did (papermill, Jupyter, the runner)
    works in the shell's.
    """
    parent = os.getppid()
    if os.environ.get("JPY_PARENT_PID") == str(parent):  # set for a kernel; its own children inherit it in vain
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            return Path(psutil.Process(parent).cwd())
    return Path.cwd()


def user_path(given: str | Path) -> Path:
    """A path that a user gave, in an option, a variable or a notebook's parameter, as an absolute one.

    "~" is the home folder, though no shell saw it, and a relative path starts where the shell stood. In a kernel one
    that only exists beside the notebook is taken there.
    """
    path = Path(os.path.expanduser(given))
    return next((found for base in (shell_dir(), Path.cwd()) if (found := base / path).exists()), shell_dir() / path)


def project_root() -> Path:
    """Folder of `notebooks/` and `data/`: `$MOBIVID_ROOT`, or that above the installed package (an editable install).

    MobiVidError where it holds no `data/paper`, so it is not a MobiVid checkout.
    """
    given = os.environ.get("MOBIVID_ROOT")
    root = user_path(given) if given else Path(__file__).resolve().parents[1]
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
    given = os.environ.get("MOBIVID_RUNS")
    parent = shell_dir() / os.path.expanduser(given) if given else project_root() / "runs"
    return parent / profile


def figures_dir(profile: str) -> Path:
    """Where `profile` leaves its tables and figures.

    Only the default profile writes the committed `figures/`: a smoke run must never overwrite
    results that mean something, so the others write `runs/<profile>/figures/`.
    """
    if profile == "laptop" and not os.environ.get("MOBIVID_RUNS"):
        return project_root() / "figures"
    return runs_dir(profile) / "figures"
