"""The record of a run: machine, versions, and the cost of each notebook."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobivid_core.files import read_json, write_json
from mobivid_core.lab.runner.fingerprint import library_versions
from mobivid_core.lab.runner.stamps import Stamp, read
from mobivid_core.paths import project_root, runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.notebook import thread_count

#: Seconds of each notebook as last committed, for estimates on a machine that has not run it yet.
EXPECTED = "expected_seconds.json"
RECORDED = ("papermill", "transformers", "safetensors", "matplotlib", "mobivid")


@dataclass
class RunRecord:
    """One run; every change is written to `runs/<profile>/manifest.json` at once.

    Attributes:
        profile: Name of the profile.
        run: Id of the run.
        status: "running", "complete", "failed" or "interrupted".
        environment: Versions, platform, processors, threads, device, commit.
        notebooks: Name -> status, seconds and peak memory.
        seconds: Wall-clock time so far.
    """

    profile: str
    run: str
    status: str = "running"
    environment: dict[str, Any] = field(default_factory=dict)
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def begin(cls, profile: str, run: str) -> RunRecord:
        """A new record with this machine's description."""
        record = cls(profile, run, environment=environment(profile))
        record._began = time.monotonic()
        record._write()
        return record

    def cached(self, stamp: Stamp) -> None:
        """Note that a notebook was unchanged; seconds and memory are those of the run that made it."""
        self._note(stamp, "cached")

    def finished(self, stamp: Stamp) -> None:
        """Note that a notebook ran."""
        self._note(stamp, "run")

    def running(self, notebook: str) -> None:
        """Note which notebook is running, so that a killed run tells where it was."""
        self.notebooks[notebook] = {"status": "running"}
        self._write()

    def end(self, status: str) -> None:
        """Close the record; a notebook still running takes the status of the run."""
        self.status = status
        for entry in self.notebooks.values():
            if entry["status"] == "running":
                entry["status"] = status
        self._write()

    def _note(self, stamp: Stamp, status: str) -> None:
        self.notebooks[stamp.notebook] = {
            "status": status,
            "seconds": stamp.seconds,
            "peak_mb": stamp.peak_mb,
            "run": stamp.run,
            "outputs": sorted([*stamp.files, *stamp.headlines, *stamp.stages]),
        }
        self._write()

    def _write(self) -> None:
        self.seconds = round(time.monotonic() - self._began, 1)
        write_json(runs_dir(self.profile) / "manifest.json", asdict(self))


def environment(profile: str) -> dict[str, Any]:
    """What runs here: versions, platform, processors, memory, threads, device, commit."""
    import psutil

    versions = library_versions()
    for name in RECORDED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return {
        "versions": versions,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": thread_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": get_profile(profile).device,
        "seed": "each notebook's SEED (0 unless -p SEED was given)",
        **commit(project_root()),
    }


def commit(folder: Path) -> dict[str, Any]:
    """The git commit of `folder` and whether files differ from it; None where git cannot tell."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def expected_seconds(notebook: str, profile: str) -> float | None:
    """Seconds that `notebook` took here before, else elsewhere when last committed; None if unknown."""
    stamp = read(notebook, profile)
    if stamp:
        return stamp.seconds
    return read_json(project_root() / "figures" / EXPECTED, {}).get(profile, {}).get(notebook)


def changed_results(folder: Path) -> list[str]:
    """What it means that a run changed files that git tracks, in lines for its end; nothing where it changed none."""
    command = ["git", "status", "--porcelain", "--", str(folder)]
    try:
        done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    count = len(done.stdout.splitlines())
    if done.returncode or not count:
        return []
    name = os.path.relpath(folder, project_root())
    return [
        f"{count} files in {name}/ differ from the committed ones: they are this machine's results now.",
        "  to compare them with the committed numbers:  make verify",
        f"  to have the committed ones back:             git restore {name} && git clean -fdq {name}",
    ]
