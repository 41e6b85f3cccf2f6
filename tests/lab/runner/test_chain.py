"""The runner on toy notebooks: caching, resuming, failing, all through real kernels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mobivid_core.errors import ParameterError, ProfileError, RunError
from mobivid_core.lab.runner import cache
from mobivid_core.lab.runner.chain import Chain

SETUP = """
import sys
sys.path.insert(0, TOY)
from toy_core import {module}
from mobivid_core.show.results import Results
results = Results(notebook="{name}", profile=PROFILE)
"""


@dataclass
class Toy:
    """Two toy notebooks, each importing a module of its own from a toy package."""

    folder: Path
    said: list[str] = field(default_factory=list)

    @property
    def package(self) -> Path:
        return self.folder / "toy_core"

    def module(self, name: str, source: str) -> None:
        self.package.mkdir(exist_ok=True)
        (self.package / f"{name}.py").write_text(source)

    def notebook(self, name: str, module: str, *cells: str, prose: str = "A toy.") -> None:
        parameters = new_code_cell(f'PROFILE = "laptop"\nSEED = 0\nTOY = {str(self.folder)!r}')
        parameters.metadata["tags"] = ["parameters"]
        sources = [SETUP.format(module=module, name=name), *cells]
        cells = [new_markdown_cell(prose), parameters, *map(new_code_cell, sources)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), self.folder / f"{name}.ipynb")

    def chain(self, **changes: object) -> Chain:
        settings = {"profile": "smoke", "notebooks": self.folder, "package": self.package, "data": self.folder / "data"}
        return Chain(**(settings | {"say": self.said.append} | changes))

    def statuses(self, **changes: object) -> list[str]:
        record = self.chain(**changes).run()
        return [entry["status"] for entry in record.notebooks.values()]


@pytest.fixture()
def toy(tmp_path: Path, runs: Path) -> Toy:
    toy = Toy(tmp_path)
    toy.module("__init__", "")
    toy.module("one", "VALUE = 1\n")
    toy.module("two", "def value():\n    from toy_core import deep\n    return deep.VALUE\n")
    toy.module("deep", "VALUE = 2\n")
    toy.notebook("01_first", "one", 'results.headline("toy_one", one.VALUE)')
    toy.notebook("02_second", "two", 'results.headline("toy_two", two.value())')
    return toy


def test_an_unchanged_chain_is_skipped_and_recorded(toy: Toy, runs: Path) -> None:
    assert toy.statuses() == ["run", "run"]
    record = json.loads((runs / "smoke" / "manifest.json").read_text())
    assert record["status"] == "complete"
    assert record["notebooks"]["01_first"]["seconds"] > 0
    assert record["notebooks"]["01_first"]["peak_mb"] > 10  # a kernel alone holds tens of megabytes
    assert {"torch", "python", "numpy"} <= record["environment"]["versions"].keys()
    assert record["environment"]["threads"] >= 1
    assert toy.statuses() == ["cached", "cached"]


def test_prose_does_not_invalidate_but_code_parameters_and_modules_do(toy: Toy) -> None:
    toy.chain().run()
    toy.notebook("01_first", "one", 'results.headline("toy_one", one.VALUE)', prose="Other words.")
    assert toy.statuses() == ["cached", "cached"]
    toy.module("deep", "VALUE = 3\n")  # imported lazily, two imports away from notebook 02 alone
    assert toy.statuses() == ["cached", "run"]
    toy.notebook("01_first", "one", 'results.headline("toy_one", one.VALUE + 1)')
    assert toy.statuses() == ["run", "cached"]
    assert toy.statuses(given=[("SEED", "1")]) == ["run", "run"]


def test_lost_or_changed_outputs_are_made_again(toy: Toy, runs: Path) -> None:
    toy.chain().run()
    headlines = runs / "smoke" / "figures" / "headlines.csv"
    headlines.write_text(headlines.read_text().replace("toy_two,2", "toy_two,9"))
    assert toy.statuses() == ["cached", "run"]
    cache.executed_path("01_first", "smoke").unlink()
    assert toy.statuses() == ["run", "cached"]


def test_a_failing_cell_stops_the_chain_and_the_next_run_resumes(toy: Toy, runs: Path) -> None:
    toy.notebook("02_second", "two", "a = 1\nraise ValueError('too small')", 'results.headline("toy_two", 1)')
    with pytest.raises(RunError, match="(?s)02_second failed in cell 3.*raise ValueError.*ValueError: too small"):
        toy.chain().run()
    assert (runs / "smoke" / "notebooks" / "02_second.failed.ipynb").is_file()
    record = json.loads((runs / "smoke" / "manifest.json").read_text())
    assert record["status"] == "failed" and record["notebooks"]["02_second"]["status"] == "failed"
    toy.notebook("02_second", "two", 'results.headline("toy_two", two.value())')
    assert toy.statuses() == ["cached", "run"]
    assert not (runs / "smoke" / "notebooks" / "02_second.failed.ipynb").exists()


def test_a_result_that_was_not_written_fails_the_run(toy: Toy) -> None:
    toy.notebook("02_second", "two", 'if SEED: results.headline("toy_two", 1)')
    with pytest.raises(RunError, match="headline 'toy_two' .* was not written"):
        toy.chain().run()


def test_a_result_left_from_an_earlier_run_fails_the_run(toy: Toy) -> None:
    toy.chain().run()
    toy.notebook("02_second", "two", 'if SEED: results.headline("toy_two", 1)')
    with pytest.raises(RunError, match="left from an earlier run"):
        toy.chain().run()


def test_results_no_longer_registered_are_removed(toy: Toy, runs: Path) -> None:
    toy.chain().run()
    toy.notebook("02_second", "two", 'results.headline("toy_other", 5)')
    toy.chain().run()
    rows = (runs / "smoke" / "figures" / "headlines.csv").read_text()
    assert "toy_other" in rows and "toy_two" not in rows and "toy_one" in rows


def test_unknown_names_are_refused_before_anything_runs(toy: Toy, runs: Path) -> None:
    with pytest.raises(ProfileError, match="unknown profile 'lap'; the profiles are smoke, laptop"):
        toy.chain(profile="lap").run()
    with pytest.raises(ParameterError, match="no notebook '07'; there are 01_first, 02_second"):
        toy.chain(only=["07"]).run()
    with pytest.raises(ParameterError, match="unknown parameter 'SEEED'. Known are: 01_first: SEED, TOY"):
        toy.chain(given=[("SEEED", "1")]).run()
    assert not (runs / "smoke" / "manifest.json").exists()


def test_only_runs_what_is_named(toy: Toy) -> None:
    record = toy.chain(only=["02"]).run()
    assert list(record.notebooks) == ["02_second"]


def test_the_kernel_is_this_interpreter_in_the_notebooks_folder(toy: Toy) -> None:
    check = f"import os\nassert sys.executable == {sys.executable!r}\nassert os.getcwd() == {str(toy.folder)!r}"
    toy.notebook("01_first", "one", check, 'results.headline("toy_one", 1)')
    toy.chain(only=["01"]).run()


def test_artefacts_of_earlier_notebooks_are_inputs_and_own_ones_outputs(toy: Toy, runs: Path) -> None:
    publish = "from mobivid_core import artifacts\nwith artifacts.publish('plan', PROFILE) as folder:\n    "
    toy.notebook("01_first", "one", publish + "(folder / 'a.json').write_text(str(one.VALUE))")
    assert toy.statuses() == ["run", "run"]
    assert cache.read("01_first", "smoke").stages.keys() == {"plan"}
    assert toy.statuses() == ["cached", "cached"]
    toy.module("one", "VALUE = 7\n")  # another artefact: the later notebook must follow
    assert toy.statuses() == ["run", "run"]
    (runs / "smoke" / "artifacts" / "plan" / "a.json").write_text("8")
    assert toy.statuses() == ["run", "cached"]  # made again with the same content


def _start(toy: Toy, until: Path) -> subprocess.Popen:
    """Run the toy chain in a process of its own and wait until the file appears."""
    code = (
        "import signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "from mobivid_core.lab import reproduce; from mobivid_core.lab.runner import chain\n"
        f"folder = Path({str(toy.folder)!r})\n"
        "base = chain.Chain\n"
        "chain.Chain = lambda p, o, g: base(p, o, g, folder, folder / 'toy_core', folder / 'data')\n"
        "sys.exit(reproduce.main(['--profile', 'smoke']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90  # a loaded machine needs many seconds to start two kernels
    while not until.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the second notebook never started"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_run_resumes(toy: Toy, runs: Path, how: signal.Signals) -> None:
    started = toy.folder / "started"
    wait = f"import time, pathlib\npathlib.Path({str(started)!r}).touch()\nwhile SEED == 0: time.sleep(0.1)"
    toy.notebook("02_second", "two", wait, 'results.headline("toy_two", 1)')
    process = _start(toy, started)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted: finished notebooks are kept" in errors
        assert json.loads((runs / "smoke" / "manifest.json").read_text())["status"] == "interrupted"
    toy.notebook("02_second", "two", 'results.headline("toy_two", 1)')
    assert toy.statuses() == ["cached", "run"]


def test_two_runs_at_once_are_refused(toy: Toy, runs: Path) -> None:
    from filelock import FileLock

    (runs / "smoke").mkdir(parents=True)
    with FileLock(runs / "smoke" / ".run.lock"), pytest.raises(RunError, match="another run of profile 'smoke'"):
        toy.chain().run()
