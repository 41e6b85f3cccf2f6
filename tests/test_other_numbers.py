"""`make test` after `make reproduce` on another machine: the run has put numbers of its own into figures/.

The tests that read them run once more, on a copy of the project whose results another seed might have given.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobivid_core.lab import readme
from mobivid_core.paths import project_root

#: Tests that read `figures/` of the checkout.
READERS = ("tests/test_gitattributes.py", "tests/test_readme.py", "tests/lab/test_verify.py")
TESTS = Path(__file__).parent


def _elsewhere(table: Path, chance: random.Random) -> None:
    """Move each fraction of a CSV by up to 5 %, and drop the last row: not every machine has every number."""
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    if len(rows) > 2:
        rows.pop()
    for row in rows[1:]:
        for k, cell in enumerate(row):
            if re.fullmatch(r"-?\d+\.\d+(e[+-]?\d+)?", cell):
                row[k] = f"{float(cell) * chance.uniform(0.95, 1.05):.6g}"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


@pytest.fixture()
def elsewhere(tmp_path: Path) -> Path:
    """This project with other results; everything else in it is a link."""
    copy, chance = tmp_path / "project", random.Random(1)
    copy.mkdir()
    for entry in project_root().iterdir():
        if entry.name not in ("figures", "runs"):
            (copy / entry.name).symlink_to(entry)
    shutil.copytree(project_root() / "figures", copy / "figures")
    for table in sorted((copy / "figures").glob("*.csv")):
        _elsewhere(table, chance)
    seconds = copy / "figures" / readme.EXPECTED
    slower = {p: {n: 1.7 * s for n, s in times.items()} for p, times in json.loads(seconds.read_text()).items()}
    seconds.write_text(json.dumps(slower, indent=1))
    return copy


def test_the_tests_stay_green_after_a_run_with_other_numbers(elsewhere: Path) -> None:
    assert all(now != wanted for now, wanted in readme.current(elsewhere).values())  # so the numbers do differ
    environment = {k: v for k, v in os.environ.items() if k != "MOBIVID_RUNS"} | {"MOBIVID_ROOT": str(elsewhere)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *READERS]
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def _sources() -> Iterator[tuple[str, str]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        yield path.relative_to(TESTS.parent).as_posix(), path.read_text(encoding="utf-8")


def test_every_test_that_reads_the_results_is_among_them() -> None:
    reads = re.compile(r"""project_root\(\) / ["']figures|\bfigures_dir\(["']laptop|for top in .*["']figures""")
    found = {name for name, text in _sources() if reads.search(text)} - {"tests/test_paths.py"}  # that asks for a name
    assert found - {f"tests/{Path(__file__).name}"} == set(READERS)
