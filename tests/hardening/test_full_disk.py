"""A full disk: one clear message, and everything that was finished before is still whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mobivid_core import artifacts
from mobivid_core.compress.scores import Scores
from mobivid_core.distill.trajectory import _write_chunk
from mobivid_core.errors import RunError
from mobivid_core.files import write_bytes
from mobivid_core.report import results as registry
from mobivid_core.report.results import Results
from mobivid_core.training.state import save_state

SIZE = 2_000_000
FULL = "no space left on the disk.*free some space and run the same command again"


@pytest.fixture()
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 2 MB that holds the runs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    monkeypatch.setenv("MOBIVID_RUNS", str(folder / "runs"))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(disk: Path, leave: int = 0) -> None:
    """Use the disk up, but for `leave` bytes."""
    room = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"x" * max(0, room.f_bavail * room.f_frsize - leave))


def _visible(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name}


def test_an_artefact_that_does_not_fit_leaves_the_old_one(small_disk: Path) -> None:
    with artifacts.publish("plan", "smoke") as folder:
        (folder / "plan.json").write_text("old")
    model = torch.nn.Linear(1000, 1000)
    model.save_config = lambda folder: (folder / "config.json").write_text("{}")
    with pytest.raises(RunError, match=FULL), artifacts.publish("plan", "smoke") as folder:
        artifacts.save_model(model, folder)
    found = artifacts.find("plan", "smoke")
    artifacts.verify(found.path)
    assert found.origin == "run" and (found.path / "plan.json").read_text() == "old"
    assert [p.name for p in found.path.parent.iterdir()] == ["plan"]


def test_results_that_do_not_fit_leave_the_old_ones(small_disk: Path) -> None:
    import matplotlib.pyplot as plt
    import pandas as pd

    results = Results(notebook="01_vae_compression", profile="smoke")
    clips = torch.rand(2, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    said = {"finding": "It is full.", "evidence": "measured"}

    def register(value: float) -> None:
        fig, axis = plt.subplots()
        axis.plot(np.linspace(0, value, 1000))
        steps = [
            lambda: results.headline("toy_headline", value),
            lambda: results.table("toy_table", pd.DataFrame({"x": np.arange(9000) * value}), **said),
            lambda: results.figure("toy_figure", fig, **said),
            lambda: results.media("toy_media", clips * value, **said),
        ]
        for step in steps:
            if value == 1:
                step()
                continue
            with pytest.raises(RunError, match=FULL):
                step()

    register(1)
    before = {name: (results.folder / name).read_bytes() for name in _visible(results.folder)}
    assert len(before) == 7  # headlines, manifest, table, figure, mp4, gif, strip
    _fill(small_disk)
    register(0.5)
    assert {name: (results.folder / name).read_bytes() for name in _visible(results.folder)} == before
    assert not [p.name for p in results.folder.iterdir() if p.name.startswith(".")]
    (small_disk / "ballast").unlink()
    results.headline("toy_headline", 3)  # and it goes on
    assert registry.read_headlines(results.folder / registry.HEADLINES)[0]["value"] == "3"


def test_kept_files_scores_and_training_states_that_do_not_fit(small_disk: Path) -> None:
    many, linear = np.arange(2000.0), torch.nn.Linear(100, 100)
    writers = {
        "state.safetensors": lambda p: save_state(p, 1, {"model": linear}, {}),
        "chunk.safetensors": lambda p: _write_chunk(p, torch.zeros(10_000)),
        "bytes": lambda p: write_bytes(p, b"x" * 10_000),
        "toy.safetensors": lambda p: Scores(many[:1], *[(many,)] * 3, estimator="toy").save(p.parent),
    }
    folder = small_disk / "kept"
    for name, write in writers.items():
        write(folder / name)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert before.keys() == writers.keys() | {"toy.json"}
    _fill(small_disk)
    for name, write in writers.items():
        with pytest.raises(RunError, match=FULL):
            write(folder / name)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_the_next_one_resumes(small_disk: Path, project) -> None:
    import dataclasses

    project = dataclasses.replace(project, runs=small_disk / "runs")
    assert project.run("--only", "01").returncode == 0
    first = project.outcome()
    _fill(small_disk, leave=8192)
    done = project.run()
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "no space left on the disk" in done.stderr
    after = project.outcome()
    assert all(
        after[name] == value for name, value in first.items() if "headlines" not in name and "manifest" not in name
    )
    (small_disk / "ballast").unlink()
    done = project.run()
    assert done.returncode == 0 and "01_first  unchanged, skipped" in done.stdout, done.stderr
