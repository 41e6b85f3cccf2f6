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


def test_a_users_path_means_what_it_means_in_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert paths.user_path("videos") == tmp_path / "videos"
    assert paths.user_path("~/videos") == tmp_path / "home" / "videos"
    assert paths.user_path(tmp_path / "x") == tmp_path / "x"
    for given, folder in (("elsewhere", tmp_path / "elsewhere"), ("~/runs", tmp_path / "home" / "runs")):
        monkeypatch.setenv("MOBIVID_RUNS", given)
        assert paths.runs_dir("smoke") == folder / "smoke"


def test_a_kernel_takes_paths_from_where_its_program_was_started(tmp_path: Path) -> None:
    """What papermill and Jupyter do: a kernel in the notebook's folder, whose parent works in the shell's."""
    (tmp_path / "shell" / "videos").mkdir(parents=True)
    (tmp_path / "notebooks" / "beside").mkdir(parents=True)
    show = "from mobivid_core.paths import *; print(*map(user_path, ('videos', 'beside', 'none')), runs_dir('x'))"
    start = (
        "import os, subprocess, sys\n"
        "kernel = os.environ | {'JPY_PARENT_PID': str(os.getpid()), 'MOBIVID_RUNS': 'runs'}\n"
        f"subprocess.run([sys.executable, '-c', {show!r}], cwd={str(tmp_path / 'notebooks')!r}, env=kernel, check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path / "shell", capture_output=True, text=True, timeout=60
    )
    shell = tmp_path / "shell"
    wanted = [shell / "videos", tmp_path / "notebooks" / "beside", shell / "none", shell / "runs" / "x"]
    assert done.stdout.split() == [str(path) for path in wanted], done.stderr
