"""This run's numbers against the committed ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mobivid_core.errors import RunError
from mobivid_core.paths import project_root
from mobivid_core.report import reproduced
from mobivid_core.report.reproduced import Tolerance, compare, main
from mobivid_core.report.results import HEADLINE_COLUMNS, HEADLINES, Results, read_headlines


def _row(**cells: str) -> dict[str, str]:
    return dict.fromkeys(HEADLINE_COLUMNS, "") | {"id": "toy", "value": "1", "evidence": "measured"} | cells


@pytest.mark.parametrize(
    ("tolerance", "row", "inside", "outside"),
    [
        (Tolerance("relative", 0.1), _row(value="-2"), (-2.2, -1.8), (-2.21, -1.79)),
        (Tolerance("interval", 0.05), _row(low="0.8", high="1.4"), (0.8, 1.4), (0.79, 1.41)),
        (Tolerance("interval", 0.05), _row(low="1", high="1"), (0.951, 1.049), (0.949, 1.051)),
        (Tolerance("factor", 2), _row(value="4"), (2, 8), (1.9, 8.1)),
        (Tolerance("absolute", 10), _row(value="0.04"), (-9, 10), (-10, 10.1)),
        (Tolerance("at most", 0.01), _row(value="0.003"), (0, 0.01), (0.011,)),
    ],
)
def test_each_rule_has_the_range_that_it_says(tolerance, row, inside, outside) -> None:
    low, high = tolerance.range(row)
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in inside)
    assert not any(low <= value <= high for value in outside)


def test_every_committed_number_has_a_tolerance_and_meets_it_itself() -> None:
    rows = read_headlines(project_root() / "figures" / HEADLINES)
    lines = compare(rows, {row["id"]: row for row in rows})
    assert len(lines) == len(rows) > 20 and {line.verdict for line in lines} == {"within"}
    known = reproduced.tolerances()
    assert all(tolerance.rule in reproduced.RULES for tolerance in known.values())
    kinds = {"derived", "measured", "measured with an interval"}
    assert kinds < known.keys() and not known.keys() - kinds - {row["id"] for row in rows}


def test_derived_numbers_are_exact_and_measured_ones_are_not() -> None:
    rows = [_row(id="count", value="33", evidence="derived"), _row(id="share"), _row(id="gone")]
    now = {"count": _row(value="34"), "share": _row(value="1.09"), "fresh": _row(value="5")}
    verdicts = {line.number: line.verdict for line in compare(rows, now)}
    assert verdicts == {"count": "OUTSIDE", "share": "within", "gone": "MISSING", "fresh": "new"}


def test_the_command_prints_the_table_and_fails_on_one_number_outside(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results = Results(notebook="01_vae_compression", profile="laptop")
    results.headline("toy_share", 0.5, 0.4, 0.6)
    results.headline("toy_count", 7, evidence="derived")
    against = tmp_path / "committed.csv"
    against.write_bytes((results.folder / HEADLINES).read_bytes())
    capsys.readouterr()
    assert main(["--against", str(against)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in said[0].split("|")] == ["number", "committed", "this run", "tolerance", "verdict"]
    assert said[-1] == "2 of 2 numbers within tolerance"
    results.headline("toy_count", 8, evidence="derived")
    capsys.readouterr()
    assert main(["--against", str(against)]) == 1
    assert "OUTSIDE" in capsys.readouterr().out


def test_without_a_run_it_says_what_to_do(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 1
    assert "do `make reproduce` first" in capsys.readouterr().err


def test_the_committed_numbers_come_from_git_where_a_run_rewrites_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBIVID_ROOT", str(tmp_path))
    monkeypatch.delenv("MOBIVID_RUNS", raising=False)
    (tmp_path / "data" / "paper").mkdir(parents=True)
    Results(notebook="01_vae_compression", profile="laptop").headline("toy", 1)
    with pytest.raises(RunError, match="cannot be read from git.*--against FILE"):
        reproduced.committed()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "figures"], ["commit", "-qm", "Numbers"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    Results(notebook="01_vae_compression", profile="laptop").headline("toy", 2)
    assert [row["value"] for row in reproduced.committed()] == ["1"]
    assert reproduced.registered("laptop")["toy"]["value"] == "2"
