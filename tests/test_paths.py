"""Paths do not depend on the working directory, and a meaningless run cannot overwrite real results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mobivid_core import paths
from mobivid_core.errors import MobiVidError


def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = paths.project_root()
    monkeypatch.chdir(tmp_path)
    assert paths.project_root() == root and paths.notebooks_dir() == root / "notebooks"


def test_only_the_default_profile_writes_the_committed_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOBIVID_RUNS", raising=False)
    assert paths.figures_dir("laptop") == paths.project_root() / "figures"
    assert paths.figures_dir("smoke") == paths.project_root() / "runs" / "smoke" / "figures"
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path))
    assert paths.figures_dir("laptop") == tmp_path / "laptop" / "figures"


def test_a_folder_without_the_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBIVID_ROOT", str(tmp_path))
    with pytest.raises(MobiVidError, match="pip install -e"):
        paths.project_root()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch", "numpy", "pandas", "diffusers", "matplotlib", "coremltools", "cv2", "av"
    code = f"import sys, mobivid_core; sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
