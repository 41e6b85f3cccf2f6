"""A run is set beside the committed results: within, outside, not run, new."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from mobivid_core.errors import ParameterError, RunError
from mobivid_core.lab import verify
from mobivid_core.lab.verify import EXACT, MEASURED, RESTATING, WITH_INTERVAL, Tolerance, of_headline
from mobivid_core.measure.intervals import Interval
from mobivid_core.paths import project_root
from mobivid_core.show.headlines import headline_table
from mobivid_core.show.results import HEADLINES, Results, read_headlines


def _run(changes: dict[str, float] | None = None, x: float = 2.0, columns: tuple[str, str] = ("name", "x")) -> None:
    """Three headlines and two tables of a laptop run, some of them changed."""
    values = {"decoder_kflop_per_pixel": 42.0, "vae_psnr_db": 26.0, "sens_time_ratio": 0.03} | (changes or {})
    vae = Results(notebook="01_vae_compression", profile="laptop")
    vae.headline("decoder_kflop_per_pixel", values["decoder_kflop_per_pixel"], unit="kFLOP", evidence="derived")
    psnr = Interval(values["vae_psnr_db"], 25, 27, kind="95 % bootstrap", over="clips", n=9)
    vae.headline("vae_psnr_db", psnr, unit="dB")
    frame = pd.DataFrame({columns[0]: ["a", "b"], columns[1]: [1.0, x]})
    vae.table("counts", frame, finding="Counts.", evidence="derived")
    vae.table("measures", frame, finding="Measures.", evidence="measured")
    sens = Results(notebook="03_sensitivity_analysis", profile="laptop")
    sens.headline("sens_time_ratio", values["sens_time_ratio"])


@pytest.fixture()
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> verify.Committed:
    """What was committed: the unchanged run."""
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path / "committed"))
    _run()
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path / "run"))
    return verify.committed_reader(str(tmp_path / "committed" / "laptop" / "figures"))


def _verdicts(lines: list[verify.Line]) -> dict[str, str]:
    return {line.number: line.verdict for line in lines}


def test_the_same_run_is_within(committed: verify.Committed) -> None:
    _run()
    lines = verify.compare("laptop", committed)
    assert set(_verdicts(lines).values()) == {verify.WITHIN} and len(lines) == 5
    assert [line.tolerance for line in lines] == ["exact", "factor 2", "interval or 5%", "exact", "same columns"]
    text = verify.rendered(lines)
    assert "vae_psnr_db             | 26 [25, 27]     | 26" in text and text.endswith("5 within")
    assert "5 checks: 4 compare numbers" in text and "1 compare the columns of measured tables only" in text


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({"decoder_kflop_per_pixel": 42.01}, "decoder_kflop_per_pixel"),
        ({"vae_psnr_db": 24.5}, "vae_psnr_db"),  # outside 25 to 27 and by more than 5 %
        ({"sens_time_ratio": 0.07}, "sens_time_ratio"),
        ({"vae_psnr_db": 24.9, "sens_time_ratio": 0.016}, None),  # within 5 %, within a factor of two
    ],
)
def test_each_number_has_its_tolerance(committed: verify.Committed, changes: dict, outside: str | None) -> None:
    _run(changes)
    found = [name for name, verdict in _verdicts(verify.compare("laptop", committed)).items() if verdict != "within"]
    assert found == ([outside] if outside else [])


def test_derived_tables_are_exact_and_measured_ones_keep_their_columns(committed: verify.Committed) -> None:
    _run(x=2.1)
    lines = {line.number: line for line in verify.compare("laptop", committed)}
    assert lines["counts"].verdict == verify.OUTSIDE and lines["counts"].ours == "row 1, x: '2.1' for '2'"
    assert lines["measures"].verdict == verify.WITHIN
    _run(columns=("name", "y"))
    lines = {line.number: line for line in verify.compare("laptop", committed)}
    assert lines["measures"].verdict == verify.OUTSIDE and lines["measures"].ours == "other columns: x, y"


def test_tables_changed_after_the_run_are_noticed(committed: verify.Committed, tmp_path: Path) -> None:
    _run()
    table = tmp_path / "run" / "laptop" / "figures" / "counts.csv"
    table.write_text(table.read_text() + "c,3\n")
    assert _verdicts(verify.compare("laptop", committed))["counts"] == verify.OUTSIDE


def test_parts_of_a_run_and_new_numbers(committed: verify.Committed) -> None:
    Results(notebook="03_sensitivity_analysis", profile="laptop").headline("sens_time_ratio", 0.03)
    Results(notebook="03_sensitivity_analysis", profile="laptop").headline("fresh", 1.0)
    verdicts = _verdicts(verify.compare("laptop", committed))
    assert verdicts["sens_time_ratio"] == verify.WITHIN and verdicts["fresh"] == verify.NEW
    assert verdicts["vae_psnr_db"] == verdicts["counts"] == verify.NOT_RUN
    assert set(_verdicts(verify.compare("laptop", committed, ["03"]))) == {"sens_time_ratio", "fresh"}


def test_a_headline_that_could_not_be_measured_is_no_number(committed: verify.Committed) -> None:
    """A record of another teacher gives no number: without one on either side there is nothing to compare."""
    _run()
    results = Results(notebook="03_sensitivity_analysis", profile="laptop")
    results.headline("sens_rho_blocks", None)
    results.headline("sens_time_ratio", None)
    found = _verdicts(verify.compare("laptop", committed))
    assert "sens_rho_blocks" not in found and found["sens_time_ratio"] == verify.NOT_RUN


def test_the_command_line_exits_with_what_it_found(committed: verify.Committed, tmp_path: Path, capsys) -> None:
    against = ["--against", str(tmp_path / "committed" / "laptop" / "figures")]
    assert verify.main(against) == 2
    assert "nothing has been run in" in capsys.readouterr().err
    _run()
    assert verify.main(against) == 0
    _run({"vae_psnr_db": 20.0})
    assert verify.main(against) == 1
    assert "4 within, 1 OUTSIDE" in capsys.readouterr().out
    assert verify.main([*against, "--profile", "smoke"]) == 2
    assert verify.main(["--against", str(tmp_path / "nowhere")]) == 2
    assert "give a git revision, or the figures/ folder" in capsys.readouterr().err


def test_the_committed_numbers_come_from_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop run rewrites figures/ in place: only git still knows what was committed."""
    root = tmp_path / "clone"
    (root / "data" / "paper").mkdir(parents=True)
    (root / "figures").mkdir()
    (root / "figures" / HEADLINES).write_text("id,value\na,1\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    (root / "figures" / HEADLINES).write_text("id,value\na,2\n")
    monkeypatch.setenv("MOBIVID_ROOT", str(root))
    monkeypatch.delenv("MOBIVID_RUNS", raising=False)
    assert verify.committed_reader(None)(HEADLINES) == "id,value\na,1\n"
    with pytest.raises(RunError, match="no committed headlines.csv at HEAD~5"):
        verify.committed_reader("HEAD~5")


def test_numbers_that_mean_nothing_are_not_compared(committed: verify.Committed) -> None:
    with pytest.raises(ParameterError, match="mean nothing; run and compare profile 'laptop'"):
        verify.compare("smoke", committed)


def test_every_measured_headline_without_an_interval_has_a_tolerance_of_its_own() -> None:
    rows = read_headlines(project_root() / "figures" / HEADLINES)
    bare = {r["id"] for r in rows if r["evidence"] == "measured" and not r["low"] and r["notebook"] not in RESTATING}
    stated = {name for name, row in headline_table().items() if row["tolerance"]}
    assert bare <= stated, f"state a tolerance for {sorted(bare - stated)}"


def test_the_rules() -> None:
    assert EXACT.holds(959697024, 959697024) and not EXACT.holds(959697024, 959797024)
    assert WITH_INTERVAL.holds(26.8, 26, 25, 27) and not WITH_INTERVAL.holds(28, 26, 25, 27)
    assert WITH_INTERVAL.holds(0.96, 1.0, 1.0, 1.0)  # an interval without width: 5 %
    assert MEASURED.holds(1.1, 1.0) and not MEASURED.holds(1.2, 1.0)
    seconds = of_headline({"id": "sens_time_ratio"})
    assert (
        seconds.kind == "factor"
        and seconds.holds(0.51, 1.0)
        and seconds.holds(1.9, 1.0)
        and not seconds.holds(2.1, 1.0)
    )
    assert Tolerance("at_most", 3).holds(0.0, 1e-6) and not Tolerance("at_most", 3).holds(4e-6, 1e-6)
    assert Tolerance("points", 15).holds(-14.0, 0.5) and not Tolerance("points", 15).holds(16.0, 0.5)


def test_every_exception_is_a_headline_and_the_committed_numbers_hold_themselves() -> None:
    rows = {row["id"]: row for row in read_headlines(project_root() / "figures" / HEADLINES)}
    own = {name: row["tolerance"] for name, row in headline_table().items() if row["tolerance"]}
    assert len(own) > 20 and all(str(of_headline({"id": name})) for name in own)  # a kind that is none has no words
    assert all(bool(row["tolerance"]) == bool(row["why"]) for row in headline_table().values())
    for row in rows.values():
        assert of_headline(row).holds(float(row["value"]), float(row["value"])), row["id"]


def test_a_checkout_of_another_user_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    with pytest.raises(RunError, match="belongs to another user; allow it with\n  git config --global --add safe"):
        verify.committed_reader(None)


@pytest.mark.parametrize(
    ("kind", "size", "within", "outside"),
    [
        ("exact", 0.0, (10.00005,), (10.001, 9.999)),
        ("relative", 0.1, (9.1, 10.9), (8.9, 11.1)),
        ("factor", 2.0, (5.1, 19.9), (4.9, 20.1)),
        ("at_most", 3.0, (0.1, 29.9), (30.1,)),
        ("points", 2.0, (8.1, 11.9), (7.9, 12.1)),
    ],
)
def test_each_tolerance_has_its_two_ends(kind: str, size: float, within: tuple, outside: tuple) -> None:
    rule = Tolerance(kind, size)
    assert all(rule.holds(ours, 10.0) for ours in within) and not any(rule.holds(ours, 10.0) for ours in outside)
    interval = Tolerance("interval", 0.05)
    assert interval.holds(7.1, 10.0, 7.0, 13.0) and interval.holds(9.6, 10.0, 9.9, 13.0)
    assert not interval.holds(6.9, 10.0, 7.0, 13.0) and not interval.holds(13.1, 10.0, 7.0, 13.0)
