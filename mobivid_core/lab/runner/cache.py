"""The runner's cache: hashes of what each notebook wrote, so that a later run can tell whether it is all still there.

A stamp is written in one step after a notebook has succeeded. A run that is killed leaves either the old
stamp, whose outputs no longer match, or none: in both cases the notebook runs again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mobivid_core import artifacts
from mobivid_core.errors import CheckpointError, RunError
from mobivid_core.files import read_json, sha256, write_json
from mobivid_core.lab.runner.source import NotebookSource
from mobivid_core.paths import figures_dir, runs_dir
from mobivid_core.show import results as registry


@dataclass(frozen=True)
class Stamp:
    """Record of one successful execution."""

    notebook: str
    parts: dict[str, str]  # hash of each part it depended on
    run: str  # id of the run
    seconds: float
    peak_mb: float  # of its kernel, 1e6 bytes
    executed: str  # SHA-256 of the executed notebook
    files: dict[str, str]  # file name of a figure or table -> SHA-256
    headlines: dict[str, str]  # id -> row
    stages: dict[str, str]  # artefact stage -> digest


def stamp_path(notebook: str, profile: str) -> Path:
    """Where the stamp of `notebook` lies."""
    return runs_dir(profile) / "stamps" / f"{notebook}.json"


def executed_path(notebook: str, profile: str) -> Path:
    """Where the executed copy of `notebook` lies."""
    return runs_dir(profile) / "notebooks" / f"{notebook}.ipynb"


def write(stamp: Stamp, profile: str) -> None:
    """Write a stamp atomically."""
    write_json(stamp_path(stamp.notebook, profile), asdict(stamp))


def read(notebook: str, profile: str) -> Stamp | None:
    """The stamp of `notebook`; None if there is none or it was written by another version."""
    record = read_json(stamp_path(notebook, profile))
    try:
        return Stamp(**record) if record else None
    except TypeError:
        return None


def stage_states(profile: str) -> dict[str, tuple[int, int, str]]:
    """Stage -> (inode, modification time, digest) of the artefacts a run has made so far."""
    states = {}
    for stage in artifacts.STAGES:
        folder = artifacts.run_path(stage, profile)
        if (folder / artifacts.STAMP).is_file():
            status = (folder / artifacts.STAMP).stat()
            digest = artifacts.Artifact(stage, folder, "run").digest
            states[stage] = (status.st_ino, status.st_mtime_ns, digest)
    return states


def collect(notebook: NotebookSource, profile: str, run_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """What this run wrote: file name -> SHA-256, and headline id -> row; RunError where a result is not of this run."""
    noted = read_json(registry.registered_path(notebook.name, profile), {})
    expected = notebook.registered()
    missing = [r for r in expected if r.result_id not in noted]
    stale = [r for r in expected if r not in missing and noted[r.result_id]["run"] != run_id]
    if missing or stale:
        says = [f"{r.kind} {r.result_id!r} (cell {r.cell}) was not written" for r in missing]
        says += [f"{r.kind} {r.result_id!r} (cell {r.cell}) is left from an earlier run" for r in stale]
        raise RunError(f"{notebook.name} ran, but " + "; ".join(says) + ". Register results unconditionally.")
    files, headlines = {}, {}
    for record in (noted[r.result_id] for r in expected):
        (headlines if record["kind"] == "headline" else files).update(record["content"])
    return files, headlines


def lost_results(files: dict[str, str], headlines: dict[str, str], profile: str) -> str:
    """Which result is gone or changed, in words; empty if all are as they were written."""
    folder = figures_dir(profile)
    for name, expected in files.items():
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
        if sha256(folder / name) != expected:
            return f"{folder / name} changed since it was written"
    rows = {row["id"]: "|".join(row.values()) for row in registry.read_headlines(folder / registry.HEADLINES)}
    for name, expected in headlines.items():
        if rows.get(name) != expected:
            return f"headline {name!r} is missing or changed in {folder / registry.HEADLINES}"
    return ""


def lost(stamp: Stamp, profile: str) -> str:
    """Which output of a stamped notebook is gone or changed, in words; empty if none is."""
    executed = executed_path(stamp.notebook, profile)
    if not executed.is_file() or sha256(executed) != stamp.executed:
        return f"{executed} is missing or changed"
    for stage, expected in stamp.stages.items():
        folder = artifacts.run_path(stage, profile)
        try:
            artifacts.verify(folder)
        except CheckpointError as error:
            return str(error)
        if artifacts.Artifact(stage, folder, "run").digest != expected:
            return f"the artefact {stage!r} changed since it was made"
    return lost_results(stamp.files, stamp.headlines, profile)


def content_of_others(notebook: str, profile: str) -> list[str]:
    """What notebooks other than `notebook` registered, as stable text lines."""
    folder = figures_dir(profile)
    manifest = read_json(folder / registry.MANIFEST, {})
    lines = [f"{i}|{e['finding']}|{e['files']}" for i, e in sorted(manifest.items()) if e["notebook"] != notebook]
    rows = registry.read_headlines(folder / registry.HEADLINES)
    return lines + ["|".join(row.values()) for row in rows if row["notebook"] != notebook]
