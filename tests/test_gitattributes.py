"""A clone under core.autocrlf=true holds the same bytes: hashes of checkpoints, data and sources stay right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mobivid_core.paths import project_root

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
#: Bytes that a conversion of line ends would change.
_LF, _CRLF, _BINARY = b"a,b\n1,2\n", b"a,b\r\n1,2\r\n", b"\x00\n\r\n\xff" * 9
FILES = {
    "data/checkpoints/vae/model.safetensors": _BINARY,
    "data/checkpoints/vae/model_without_zeros.safetensors": _LF,  # git would guess text
    "data/checkpoints/vae/config.json": _LF,
    "data/checkpoints/vae/log.csv": _CRLF,
    "data/clips/SHA256SUMS": _LF,
    "data/clips/train.mp4": _BINARY,
    "figures/headlines.csv": _LF,
    "figures/manifest.json": _LF,
    "figures/start_clips.webp": _LF,
    "figures/start_clips.jpg": _LF,
    "notebooks/00_start_here.ipynb": _LF,
    "mobivid_core/paths.py": _LF,
    "Makefile": _LF,
    "somewhere/else.pdf": _CRLF,
    "somewhere/else.npz": _CRLF,
    "somewhere/else.png": _CRLF,
}


@pytest.fixture()
def windows(tmp_path: Path) -> Path:
    """A repository that converts line ends as Git for Windows does by default, under the project's attributes."""
    _git(tmp_path, "init", "-q")
    for name, value in (("core.autocrlf", "true"), ("core.safecrlf", "false"), ("user.name", "t"), ("user.email", "t")):
        _git(tmp_path, "config", name, value)
    shutil.copy(project_root() / ".gitattributes", tmp_path)
    return tmp_path


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def _cloned(folder: Path) -> dict[str, bytes]:
    """The files' bytes after they were committed, deleted and checked out again."""
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "all")
    for name in FILES:
        (folder / name).unlink()
    _git(folder, "checkout", "-q", "--", ".")
    return {name: (folder / name).read_bytes() for name in FILES}


def test_nothing_changes_in_a_clone_that_converts_line_ends(windows: Path) -> None:
    assert _cloned(windows) == FILES


def test_without_the_attributes_it_would(windows: Path) -> None:
    (windows / ".gitattributes").unlink()
    changed = {name for name, data in _cloned(windows).items() if data != FILES[name]}
    assert {"data/checkpoints/vae/config.json", "data/clips/SHA256SUMS", "mobivid_core/paths.py"} <= changed


def test_hashed_files_of_the_project_are_left_alone(windows: Path) -> None:
    """Every file under data/ and figures/, whatever its ending, is exempt from conversion."""
    paths = [p.relative_to(project_root()) for top in ("data", "figures") for p in (project_root() / top).rglob("*")]
    told = _git(windows, "check-attr", "text", "--", *(path.as_posix() for path in paths))
    assert len(told.splitlines()) == len(paths) > 50
    assert not [line for line in told.splitlines() if not line.endswith(": text: unset")]
