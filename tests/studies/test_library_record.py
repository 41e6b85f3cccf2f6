"""The record of the library benchmark: read, summarised and judged; the shipped one is whole."""

import json

import pandas as pd
import pytest

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.measure.bars import bars_table
from mobivid_core.measure.intervals import over_seeds
from mobivid_core.studies.library_record import OURS, PRUNING_BARS, RECORD, Record, pruning_bars

FACTS = {
    "date": "2026-01-01",
    "teacher": "abc",
    "libraries": ["torch-pruning 1.6.1"],
    "torch": "2.13.0",
    "threads": 1,
    "steps": 3,
    "seeds": 2,
}


def rows():
    recovered = {"torch-pruning Taylor": 0.4, "modelopt FastNAS": 0.5, "block-only by KD": 0.3, OURS: 0.1}
    found = []
    for budget in ("0.7", "paper"):
        for arm, value in recovered.items():
            for seed in (0, 1):
                found.append(
                    {
                        "arm": arm,
                        "budget": budget,
                        "seed": seed,
                        "share": 0.7,
                        "planning seconds": 10 * value,
                        "KD before recovery": 2 * value,
                        "KD recovered": value + 0.02 * seed,
                        "MiniVBench total": 1 - value,
                    }
                )
    refused = {"arm": "head-only by KD", "budget": "paper", "seed": 0, "refused": "below the floor"}
    return pd.DataFrame([*found, refused])


@pytest.fixture
def record(tmp_path):
    rows().to_csv(tmp_path / f"{RECORD}.csv", index=False)
    (tmp_path / f"{RECORD}.json").write_text(json.dumps(FACTS))
    return Record.load(tmp_path)


def test_best_library_and_paired_ratios(record):
    assert record.best("0.7", ("torch-pruning", "modelopt")) == "torch-pruning Taylor"
    found = record.ratio("paper", OURS, "torch-pruning Taylor")
    assert found == over_seeds([0.1 / 0.4, 0.12 / 0.42], logs=True) and found.n == 2
    assert record.gain("paper", OURS, "torch-pruning Taylor", "MiniVBench total").value == pytest.approx(0.3)
    planning = record.ratio("paper", OURS, "modelopt FastNAS", "planning seconds")
    assert planning.value == pytest.approx(0.2) and planning.kind == "no interval"  # planned once for all seeds


def test_bars_are_judged_by_the_record(record):
    table = bars_table(pruning_bars(record), PRUNING_BARS).set_index("measure")
    assert table["verdict"].str.startswith("met").sum() == 6  # all but "before recovery", .25 against .1
    assert table.loc[PRUNING_BARS["before_p70"].measure, "verdict"] == "missed"


def test_refused_arms_are_shown_and_not_counted(record):
    table = record.table()
    assert "below the floor" in set(table["refused"])
    assert "head-only by KD" not in set(record.measured("paper")["arm"])


def test_another_teacher_is_said(record):
    assert "ANOTHER TEACHER" in record.provenance("xyz")
    assert "ANOTHER" not in record.provenance("abc") and "torch-pruning 1.6.1" in record.provenance("abc")


def test_a_missing_or_foreign_record_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="mobivid study libraries"):
        Record.load(tmp_path)
    (tmp_path / f"{RECORD}.csv").write_text("a,b\n1,2\n")
    (tmp_path / f"{RECORD}.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks the columns"):
        Record.load(tmp_path)


def test_the_shipped_record_has_every_arm_that_the_bars_need():
    record = Record.load()
    assert set(pruning_bars(record)) == set(PRUNING_BARS)
    assert record.measured("0.7").groupby("arm")["seed"].nunique().min() == record.facts["seeds"]
    rows = record.measured("0.7")
    within = rows[rows["arm"].str.startswith(("ours", "torch", "modelopt"))]["share"]
    assert within.between(0.69, 0.7 * 1.02).all()


def test_library_plans_are_whole(teacher, calibration):
    pytest.importorskip("torch_pruning")
    from mobivid_core.prune.surgery import prune
    from mobivid_core.sensitivity.kd import reference
    from mobivid_core.studies.library_plans import torch_pruning_plan

    against = reference(teacher, calibration.first(8))
    budget = 0.8 * sum(p.numel() for p in teacher.parameters())
    for importance in ("magnitude", "Taylor", "Hessian"):
        found = torch_pruning_plan(teacher, calibration.first(8), budget, importance, against, samples=4)
        assert 0.7 * budget < found.plan.parameters <= budget
        assert prune(teacher, found.plan).sizes == found.plan.sizes
    with pytest.raises(ParameterError, match="unknown importance"):
        torch_pruning_plan(teacher, calibration.first(8), budget, "nothing", against)
