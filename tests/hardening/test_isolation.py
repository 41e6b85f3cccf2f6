"""Other users, other folders, two runs at once, and no network."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mobivid_core.errors import RunError
from mobivid_core.lab.runner.chain import Chain
from mobivid_core.paths import project_root
from mobivid_core.pipeline.pipeline import MobiVidPipeline

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture()
def public(project) -> Iterator:
    """The toy project where another user can read it and write nothing, with an empty folder that is theirs."""
    start = f"import mobivid_core, subprocess; subprocess.run([{sys.executable!r}, '-c', ''], check=True)"  # a kernel
    tried = subprocess.run([*AS_NOBODY, sys.executable, "-c", start], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"cannot run as another user here: {tried.stderr.strip()[-200:]}")
    folder = Path(tempfile.mkdtemp(prefix="mobivid-public-"))
    try:
        folder.chmod(0o755)
        shutil.copytree(project.root, folder / "checkout")
        (folder / "theirs").mkdir()
        os.chown(folder / "theirs", 65534, 65534)
        yield dataclasses.replace(project, root=folder / "checkout", runs=folder / "theirs" / "runs")
    finally:
        shutil.rmtree(folder)


def _as_nobody(project, *arguments: str, runs: Path | None = None) -> subprocess.CompletedProcess:
    environment = project.environment | {"HOME": str(project.root.parent / "theirs")}
    environment.pop("MOBIVID_RUNS")
    if runs:
        environment["MOBIVID_RUNS"] = str(runs)
    return project.run(*arguments, prefix=AS_NOBODY, env=environment, cwd="/")


def test_a_read_only_checkout_says_what_to_set(public) -> None:
    done = _as_nobody(public)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{public.root}/runs/smoke cannot be written ([Errno 13] Permission denied" in done.stderr
    assert "set MOBIVID_RUNS" in done.stderr
    listed = _as_nobody(public, "--list")  # reading needs no writing
    assert listed.returncode == 0 and listed.stdout.count("not run yet") == 3


def test_a_runs_folder_of_somebody_else_says_what_to_set(public) -> None:
    (public.root / "runs" / "smoke").mkdir(parents=True)
    done = _as_nobody(public)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cannot be written ([Errno 13] Permission denied" in done.stderr and "set MOBIVID_RUNS" in done.stderr


@pytest.mark.slow
def test_a_read_only_checkout_runs_with_a_folder_of_ones_own(public) -> None:
    done = _as_nobody(public, runs=public.runs)
    assert done.returncode == 0, done.stderr
    assert (public.runs / "smoke" / "figures" / "toy_figure.png").stat().st_uid == 65534
    assert {p.name for p in public.root.iterdir()} == {"data", "notebooks"}


def test_results_in_a_read_only_folder_say_what_to_set(runs: Path) -> None:
    tried = subprocess.run([*AS_NOBODY, "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("cannot run as another user here")
    folder = Path(tempfile.mkdtemp(prefix="mobivid-public-"))
    folder.chmod(0o755)
    code = f"""
from pathlib import Path
from mobivid_core.errors import RunError
from mobivid_core.files import write_text
from mobivid_core.show.results import Results
for write in (lambda: write_text(Path({str(folder)!r}) / "a" / "b.txt", "x"),
              lambda: Results(notebook="00_start_here", profile="smoke").headline("x", 1.0)):
    try:
        write()
    except RunError as error:
        assert "set MOBIVID_RUNS" in str(error), error
    else:
        raise SystemExit("nothing was refused")
"""
    environment = os.environ | {"MOBIVID_RUNS": str(folder)}
    (folder / "smoke").mkdir()
    done = subprocess.run([*AS_NOBODY, sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_working_folder_does_not_matter(project, tmp_path: Path) -> None:
    first = project.run(cwd="/")
    assert first.returncode == 0, first.stderr
    elsewhere = dataclasses.replace(project, runs=tmp_path / "other")
    (tmp_path / "somewhere").mkdir()
    assert elsewhere.run(cwd=tmp_path / "somewhere").returncode == 0
    assert project.outcome() == elsewhere.outcome()
    assert not list((tmp_path / "somewhere").iterdir())


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_says_so_and_harms_nothing(project) -> None:
    first = project.start()
    manifest = project.runs / "smoke" / "manifest.json"
    deadline = time.monotonic() + 120
    while not manifest.is_file():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    second = project.run()
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert "another run of profile 'smoke' is going on" in second.stderr and "wait for it" in second.stderr
    said, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    assert json.loads(manifest.read_text())["status"] == "complete"
    again = project.run()
    assert again.stdout.count("unchanged, skipped") == 3


#: Brings up the loopback of a network namespace of its own, as every machine has it, and goes on as the command.
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
os.execvp(sys.argv[1], sys.argv[1:])
"""
OFFLINE = ("unshare", "-n", sys.executable, "-c", LOOPBACK)


@pytest.mark.slow
def test_a_notebook_runs_on_a_machine_without_network(runs: Path) -> None:
    probe = "import socket; socket.create_connection(('1.1.1.1', 53), 2)"
    tried = subprocess.run([*OFFLINE, sys.executable, "-c", probe], capture_output=True, text=True)
    if "unreachable" not in tried.stderr:
        pytest.skip(f"no network namespace here: {tried.stderr.strip()[-200:]}")
    command = [*OFFLINE, sys.executable, "-m", "mobivid_core", "reproduce", "--profile", "smoke", "--only", "00"]
    environment = os.environ | {"MOBIVID_ROOT": str(project_root()), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert (runs / "smoke" / "figures" / "start_clips.mp4").stat().st_size > 1000


def test_a_clip_is_made_from_shipped_weights_without_any_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    frames = MobiVidPipeline.from_shipped("student")("a red star moving right on a plain background").frames
    assert frames.shape == (1, 17, 128, 128, 3) and np.isfinite(frames).all()
    assert frames.std() > 0.02  # a picture, not one grey


def test_a_lock_held_elsewhere_is_refused_at_once(project, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    for name in ("MOBIVID_ROOT", "MOBIVID_RUNS"):
        monkeypatch.setenv(name, project.environment[name])
    (project.runs / "smoke").mkdir(parents=True)
    with FileLock(project.runs / "smoke" / ".run.lock"), pytest.raises(RunError, match="another run of profile"):
        Chain("smoke").run()
