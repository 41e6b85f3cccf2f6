"""A checkout, and a home folder, that can only be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
#: Another user; where that one may not even read the interpreter, this one without the right to pass permissions over.
POWERLESS = (
    ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    ("setpriv", "--bounding-set=-all", "--inh-caps=-all"),
    (),  # an ordinary user
)


@pytest.fixture()
def powerless(project) -> Iterator[tuple[str, ...]]:
    """A prefix of commands to which the project, and a home folder in it, can be read and nothing can be written."""
    (project.root / "home").mkdir()
    folders = [project.root, *(p for p in project.root.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    for folder in project.root.parents[:3]:  # those that pytest made
        folder.chmod(0o755)
    program = (
        "import os, subprocess, sys, nbclient, mobivid_core; subprocess.run([sys.executable, '-c', ''], check=True)\n"
        f"assert not os.access({str(project.root)!r}, os.W_OK)"
    )
    try:
        for prefix in POWERLESS:
            if not prefix or shutil.which(prefix[0]):
                command = [*prefix, sys.executable, "-c", program]
                if not subprocess.run(command, env=project.environment, capture_output=True).returncode:
                    yield prefix
                    return
        pytest.skip("permissions do not bind any user that can be tried here")
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.slow
def test_a_read_only_checkout_runs_and_says_where_results_can_go(project, powerless) -> None:
    environment = project.environment | {"HOME": str(project.root / "home")}
    before = _state(project.root)
    without = {name: value for name, value in environment.items() if name != "MOBIVID_RUNS"}
    refused = project.run("--only", "01", prefix=powerless, env=without, cwd="/")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr, refused.stderr
    assert "cannot be written" in refused.stderr and "set MOBIVID_RUNS to a folder that is" in refused.stderr
    project.runs.mkdir(mode=0o777)
    project.runs.chmod(0o777)
    done = project.run(prefix=powerless, env=environment, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 3 notebooks done" in done.stdout
    assert _state(project.root) == before


def _state(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
