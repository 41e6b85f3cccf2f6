"""Where and how it is started does not matter: another folder, another user, no network, a second run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobivid_core.paths import project_root

NOBODY = 65534
CLIP = """
import socket

def refuse(*_, **__):
    raise OSError("the network was asked for")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from mobivid_core.models.pipeline import MobiVidPipeline
frames = MobiVidPipeline.from_shipped("student")("a red circle moving left").frames
print("frames", frames.shape, bool(frames.std() > 0.01))
"""


@pytest.mark.slow
def test_the_shipped_pipeline_makes_a_clip_without_a_network(project, tmp_path: Path) -> None:
    """In a network namespace of its own where the system lets us, with every way out refused anywhere."""
    alone = ["unshare", "-n"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []
    environment = project.environment | {"MOBIVID_ROOT": str(project_root()), "HOME": str(tmp_path)}
    done = subprocess.run(
        [*alone, sys.executable, "-c", CLIP], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert "frames (1, " in done.stdout and done.stdout.rstrip().endswith("True"), done.stderr


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


@pytest.mark.slow
def test_a_second_run_says_so_and_the_first_one_is_not_disturbed(project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = project.start(cwd=elsewhere)
    assert "01_first" in first.stdout.readline()  # it holds the lock now
    second = project.run(cwd="/")
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert "another run of profile 'smoke' is going on" in second.stderr
    assert "wait for it, or set MOBIVID_RUNS to another folder" in second.stderr
    said, errors = first.communicate(timeout=300)
    assert first.returncode == 0, said + errors
    assert not list(elsewhere.iterdir())  # nothing is written where it was started
    assert {"figures/toy_figure.png", "artifacts/plan/4.json"} <= project.outcome().keys()
