"""The record of a run: machine, versions, and the cost of each notebook."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mobivid_core.files import read_json, write_json
from mobivid_core.lab.runner.cache import Stamp, read
from mobivid_core.lab.runner.fingerprint import COMPUTING, versions
from mobivid_core.paths import project_root, runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.notebook import thread_count

#: Seconds of each notebook as last committed, for estimates on a machine that has not run it yet.
EXPECTED = "expected_seconds.json"
RECORDED = ("papermill", "transformers", "safetensors", "matplotlib", "mobivid")


@dataclass
class RunRecord:
    """One run; every change is written to `runs/<profile>/manifest.json` at once.

    `status` is "running", "complete", "failed" or "interrupted"; `notebooks` has each one's status and cost.
    """

    profile: str
    run: str
    status: str = "running"
    environment: dict[str, Any] = field(default_factory=dict)
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._began, self.environment = time.monotonic(), environment(self.profile)
        self._write()

    def end(self, status: str) -> None:
        """Close the record; a notebook still running takes the status of the run."""
        self.status = status
        for entry in self.notebooks.values():
            if entry["status"] == "running":
                entry["status"] = status
        self._write()

    def note(self, notebook: str, status: str, stamp: Stamp | None = None) -> None:
        """Note that a notebook is "running", has "run", or was unchanged ("cached"), with the cost when it was made."""
        self.notebooks[notebook] = {"status": status}
        if stamp:
            self.notebooks[notebook] |= {name: getattr(stamp, name) for name in ("seconds", "peak_mb", "run")}
            self.notebooks[notebook]["outputs"] = sorted([*stamp.files, *stamp.headlines, *stamp.stages])
        self._write()

    def _write(self) -> None:
        self.seconds = round(time.monotonic() - self._began, 1)
        write_json(runs_dir(self.profile) / "manifest.json", asdict(self))


def environment(profile: str) -> dict[str, Any]:
    """What runs here: versions, platform, processors, memory, threads, device, commit."""
    import psutil

    head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {
        "versions": versions((*COMPUTING, *RECORDED)),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": thread_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": get_profile(profile).device,
        "seed": "each notebook's SEED (0 unless -p SEED was given)",
        "commit": head.stdout.strip() if head.returncode == 0 else None,
        "dirty": bool(changes.stdout) if changes.returncode == 0 else None,
    }


def git(*words: str) -> subprocess.CompletedProcess[str]:
    """What git says in the project's folder; status 128 without any output where there is no git."""
    try:
        return subprocess.run(["git", *words], cwd=project_root(), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return subprocess.CompletedProcess(words, 128, "", "")


def expected_seconds(notebook: str, profile: str) -> float | None:
    """Seconds that `notebook` took here before, else elsewhere when last committed; None if unknown."""
    stamp = read(notebook, profile)
    if stamp:
        return stamp.seconds
    return read_json(project_root() / "figures" / EXPECTED, {}).get(profile, {}).get(notebook)


def changed_results(folder: Path) -> list[str]:
    """What it means that a run changed files that git tracks, in lines for its end; nothing where it changed none."""
    count = len(git("status", "--porcelain", "--", str(folder)).stdout.splitlines())
    if not count:
        return []
    name = os.path.relpath(folder, project_root())
    return [
        f"{count} files in {name}/ differ from the committed ones: they are this machine's results now.",
        "  to compare them with the committed numbers:  make verify",
        f"  to have the committed ones back:             git restore {name} && git clean -fdq {name}",
    ]
