"""Speed-ups over runs: the record grows by a run a call, another teacher's is not read, one run is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mobivid_core.measure.comparison import Seconds
from mobivid_core.studies import records, speed_record
from mobivid_core.studies.speed_record import DISTILLED, PRUNED, TEACHER, SpeedRuns, speed_of


def _times(scale: float) -> pd.DataFrame:
    rows = [
        {"sampler": name, "batch": batch, "repeat": i, "seconds": base * (1 + 0.01 * i)}
        for batch in (1, 16)
        # batches gain unlike: the teacher takes twice as long for one clip at a time
        for name, base in ((TEACHER, 30.0 * scale * (2 if batch == 1 else 1)), (DISTILLED, 2.0), (PRUNED, 1.0))
        for i in range(4)
    ]
    return pd.DataFrame(rows)


def _teacher_is(digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (records, speed_record):
        monkeypatch.setattr(module, "teacher_hash", lambda profile: digest)


@pytest.fixture()
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _teacher_is("abc", monkeypatch)

    def add(scale: float) -> None:
        monkeypatch.setattr(speed_record, "one_run", lambda *_: _times(scale))
        assert speed_record.main(["--turns", "4", "--out", str(tmp_path)]) == 0

    return add


def test_runs_are_added_and_the_interval_is_over_them(record, tmp_path: Path) -> None:
    record(1.0)
    assert SpeedRuns.load("abc", tmp_path) is None  # one run says nothing of another
    record(1.2)
    found = SpeedRuns.load("abc", tmp_path)
    ratio = found.faster(TEACHER, PRUNED, 16)
    assert (ratio.n, ratio.over, ratio.kind) == (2, "runs", "95 % t")
    assert ratio.value == pytest.approx(30 * np.sqrt(1.2)) and ratio.low < 30 < 36 < ratio.high
    assert found.faster(TEACHER, PRUNED, 1).value == pytest.approx(2 * ratio.value)
    assert "2 runs" in found.finding() and SpeedRuns.load("other", tmp_path) is None


def test_without_a_record_the_run_speaks_for_itself(record, tmp_path: Path) -> None:
    live = Seconds({TEACHER: [30.0] * 6, PRUNED: [1.0] * 6})
    assert speed_of(live, None, TEACHER, PRUNED, 16).over == "repeats in one run"
    record(1.0)
    record(1.1)
    assert speed_of(live, SpeedRuns.load("abc", tmp_path), TEACHER, PRUNED, 16).over == "runs"


def test_another_teachers_runs_are_dropped(record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(1.0)
    _teacher_is("new", monkeypatch)
    record(1.0)
    rows = pd.read_csv(tmp_path / "speed_runs.csv")
    assert rows["run"].unique().tolist() == [0]
