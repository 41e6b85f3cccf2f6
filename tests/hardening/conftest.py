"""A synthetic project of three toy notebooks, run by the real runner in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mobivid_core.files import sha256

SETUP = 'from mobivid_core.show.results import Results\nresults = Results(notebook="{name}", profile=PROFILE)'
NOTEBOOKS = {
    "01_first": (
        """
        import pandas as pd
        from mobivid_core import artifacts
        with artifacts.publish("plan", PROFILE) as folder:
            for part in range(5):
                (folder / f"{part}.json").write_text(str([part] * 1000))
        """,
        "from mobivid_core.measure.intervals import Interval\n"
        'found = Interval(1.25, 1, 2, kind="95 % t", over="seeds", n=3)\n'
        'results.headline("toy_first", found, unit="dB")',
        'results.table("toy_table", pd.DataFrame({"x": range(50)}), finding="It counts.", evidence="derived")',
    ),
    "02_second": (
        """
        import json
        from mobivid_core import artifacts
        plan = artifacts.find("plan", PROFILE)
        assert plan.origin == "run"
        value = sum(json.loads((plan.path / "4.json").read_text()))
        """,
        'results.headline("toy_second", value)',
    ),
    "03_third": (
        """
        import matplotlib.pyplot as plt
        from mobivid_core.show.results import headlines
        values = headlines(PROFILE).set_index("id")["value"]
        fig, axis = plt.subplots()
        axis.plot([values["toy_first"], values["toy_second"]])
        """,
        'results.figure("toy_figure", fig, finding="It rises.", evidence="measured")',
    ),
}


@dataclass
class Project:
    """A MobiVid project with toy notebooks.

    Attributes:
        root: Its folder: `notebooks/`, `data/paper/`.
        runs: Where its runs go.
    """

    root: Path
    runs: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point the runner at this project."""
        return os.environ | {"MOBIVID_ROOT": str(self.root), "MOBIVID_RUNS": str(self.runs), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str, prefix: tuple[str, ...] = (), **options: object) -> subprocess.Popen:
        """Start the runner's command line, in the folder `cwd` if given."""
        command = [*prefix, sys.executable, "-m", "mobivid_core", "reproduce", "--profile", "smoke", *arguments]
        settings = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **(settings | options))

    def run(self, *arguments: str, **options: object) -> subprocess.CompletedProcess:
        """Run the command line to its end."""
        process = self.start(*arguments, **options)
        said, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, said, errors)

    def outcome(self) -> dict[str, object]:
        """Everything a run leaves that must not depend on when it was stopped: file hashes, notes without the run."""
        folder = self.runs / "smoke"
        kept = {p.relative_to(folder).as_posix(): p for part in ("figures", "artifacts") for p in files(folder / part)}
        notes = {p.name: json.loads(p.read_text()) for p in files(folder / "registered")}
        for note in (entry for noted in notes.values() for entry in noted.values()):
            del note["run"]
        return {name: sha256(path) for name, path in kept.items()} | notes


def files(folder: Path) -> list[Path]:
    """Files below a folder that a reader sees: none whose path has a part that begins with a dot."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


@pytest.fixture()
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    (root / "data" / "paper").mkdir(parents=True)
    (root / "notebooks").mkdir()
    for name, cells in NOTEBOOKS.items():
        parameters = new_code_cell('PROFILE = "laptop"  # profile\nSEED = 0  # seed')
        parameters.metadata["tags"] = ["parameters"]
        sources = [SETUP.format(name=name), *(textwrap.dedent(cell).strip() for cell in cells)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        made = new_notebook(cells=[parameters, *map(new_code_cell, sources)], metadata=kernel)
        nbformat.write(made, root / "notebooks" / f"{name}.ipynb")
    return Project(root, tmp_path / "runs")
