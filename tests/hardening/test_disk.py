"""A full disk: one clear error, and whatever was finished before is still whole. Mounts small file systems."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core import artifacts
from mobivid_core.distill.trajectory import collect_trajectories
from mobivid_core.errors import RunError
from mobivid_core.files import read_json
from mobivid_core.flow.condition import Condition
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.show import results as registry
from mobivid_core.show.results import Results

MEGABYTE = 1 << 20
FULL = "no space left on the disk while writing"


@pytest.fixture()
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of one megabyte as the runs folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    monkeypatch.setenv("MOBIVID_RUNS", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _fill(folder: Path, leave: int) -> Path:
    """Use all but `leave` bytes of a file system."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            stream.truncate(max(0, stream.tell() - leave))
    return filler


def _seen(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_artefact_that_does_not_fit_leaves_the_old_one(small: Path) -> None:
    with artifacts.publish("plan", "smoke") as folder:
        (folder / "plan.json").write_text("old")
    with pytest.raises(RunError, match=f"{FULL} the plan artefact.*run the same command again"):
        with artifacts.publish("plan", "smoke") as folder:
            (folder / "plan.json").write_bytes(bytes(2 * MEGABYTE))
    with pytest.raises(RunError, match=f"{FULL} .*diffusion_pytorch_model.safetensors"):
        with artifacts.publish("plan", "smoke") as folder:
            _save_large_model(folder)
    with pytest.raises(RunError, match=f"{FULL} .*toy.safetensors"):  # through safetensors, whose own errors differ
        with artifacts.publish("plan", "smoke") as folder:
            _scores(200_000).save(folder)
    found = artifacts.find("plan", "smoke")
    artifacts.verify(found.path)
    assert (found.path / "plan.json").read_text() == "old"
    assert _seen(found.path.parent) == ["plan"]


def _save_large_model(folder: Path) -> None:
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin

    class Wide(ModelMixin, ConfigMixin):
        @register_to_config
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(700, 700)

    artifacts.save_model(Wide(), folder)


def _scores(neurons: int) -> Scores:
    heads = (np.ones(2),)
    return Scores(np.ones(1), self_heads=heads, cross_heads=heads, ffn=(np.ones(neurons),), estimator="toy")


@pytest.mark.parametrize("leave", [0, 4096, 8192])
def test_results_that_do_not_fit_leave_the_old_ones(small: Path, leave: int) -> None:
    results = Results(notebook="01_vae_compression", profile="smoke")
    table = pd.DataFrame({"x": [1, 2]})
    results.table("toy", table, finding="Old.", evidence="derived")
    results.headline("number", 1.0)
    before = registry.manifest("smoke")
    filler = _fill(small, leave)
    with pytest.raises(RunError, match=FULL):
        results.table("toy", pd.DataFrame({"x": range(20_000)}), finding="New.", evidence="derived")
    filler.unlink()
    assert registry.manifest("smoke") == before
    assert (results.folder / "toy.csv").read_text() == "x\n1\n2\n"
    assert [row["value"] for row in registry.read_headlines(results.folder / registry.HEADLINES)] == ["1"]
    assert read_json(registry.registered_path(results.notebook, "smoke")).keys() == {"toy", "number"}


class Still(torch.nn.Module):
    """A velocity of zero: a trajectory that stays where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, timestep, text, mask):
        from types import SimpleNamespace

        return SimpleNamespace(sample=x * 0)


def test_trajectories_that_do_not_fit_are_an_error_and_resume(small: Path) -> None:
    condition = Condition(torch.zeros(8, 2, 4), torch.ones(8, 2).bool(), torch.zeros(1, 2, 4), torch.ones(1, 2).bool())

    def collect() -> object:
        # a chunk of two takes 2 x 5 x 8192 x 4 bytes = 328 kB: three of four fit
        return collect_trajectories(
            Still(), condition, (128, 4, 4, 4), steps=4, guidance=1.0, cache=small / "trajectories", chunk=2
        )

    filler = _fill(small, 700_000)
    with pytest.raises(RunError, match=f"{FULL} .*00002-.*run the same command again"):
        collect()
    assert len(list(small.rglob("*.safetensors"))) == 2 and not list(small.rglob(".*"))
    filler.unlink()
    for kept in small.rglob("00001-*.safetensors"):
        kept.write_bytes(kept.read_bytes()[:100])  # torn by the disk: made anew, not read
    subprocess.run(["mount", "-o", "remount,size=4m", small], check=True)
    done = collect()
    assert done.forwards == 3 * 2 * 4  # the first chunk was kept
    assert torch.equal(done.states[:, 0], done.endpoints)


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 24_576, 98_304])
def test_a_run_on_a_full_disk_says_so_and_resumes(project, small: Path, tmp_path: Path, leave: int) -> None:
    whole = project.run()
    assert whole.returncode == 0, whole.stderr
    expected = project.outcome()
    project.runs = small
    filler = _fill(small, leave)
    stopped = project.run()
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "no space left on the disk" in stopped.stderr and "Traceback" not in stopped.stderr, stopped.stderr
    filler.unlink()
    resumed = project.run()
    assert resumed.returncode == 0, resumed.stderr
    assert project.outcome() == expected
