"""Trials at equal compute, and the record that the notebook reads."""

import json
from functools import partial

import pandas as pd
import pytest

from mobivid_core.errors import CheckpointError
from mobivid_core.studies.distillation_arms import ARMS, BOTH, REGRESSION, SLOWER, Trial
from mobivid_core.studies.loss_record import LossRecord, trials
from mobivid_core.studies.records import run_trials

FACTS = {"date": "2026-01-01", "teacher": "abc", "start": "student", "clips": 4, "seeds": 3, "torch": "2"}


def row(trial, seed, frechet, tflop=10.0):
    return {
        "trial": trial, "seed": seed, "TFLOP (counted)": tflop, "all together": 0.5, "Frechet": frechet,
        "Frechet / start": frechet / 10, "low": 0.1, "high": 0.2,
    }  # fmt: skip


def write(folder, rows, name="losses"):
    pd.DataFrame(rows).to_csv(folder / f"distill_{name}.csv", index=False)
    (folder / f"distill_{name}.json").write_text(json.dumps(FACTS))


def test_trials_of_each_study():
    assert {t.arm for t in trials("losses", 8.0, 3)} == set(ARMS) and len(trials("losses", 8.0, 3)) == 18
    compute = trials("compute", 8.0, 1)
    assert sorted({t.tflop for t in compute}) == [1.0, 2.0, 4.0, 8.0] and {t.arm for t in compute} == {
        REGRESSION,
        SLOWER,
        BOTH,
    }


def test_interrupted_study_goes_on_with_what_is_missing(tmp_path):
    asked = []

    def run(trial):
        asked.append(trial)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return row(trial.arm, trial.seed, 1.0)

    todo = [Trial(REGRESSION, 1.0, 0), Trial(BOTH, 1.0, 0)]
    made = [(f"{t.arm}-{t.seed}".replace(" ", ""), partial(run, t)) for t in todo]
    with pytest.raises(KeyboardInterrupt):
        run_trials(made, tmp_path, "losses")
    table = run_trials(made, tmp_path, "losses")
    assert asked == [todo[0], todo[1], todo[1]] and list(table["trial"]) == [REGRESSION, BOTH]


def test_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(CheckpointError, match="make it again: mobivid study losses"):
        LossRecord.load("losses", "abc", tmp_path)


def test_record_of_another_teacher_says_so(tmp_path):
    write(tmp_path, [row(REGRESSION, 0, 2.0)])
    assert "on this teacher" in LossRecord.load("losses", "abc", tmp_path).source
    assert "ANOTHER TEACHER" in LossRecord.load("losses", "xyz", tmp_path).verdict()
    (tmp_path / "distill_losses.csv").write_text("trial,seed\na,1\n")
    with pytest.raises(CheckpointError, match="lacks the columns.*make it again"):
        LossRecord.load("losses", "abc", tmp_path)
    (tmp_path / "distill_losses.json").write_text("{")
    with pytest.raises(CheckpointError, match="no readable record"):
        LossRecord.load("losses", "abc", tmp_path)


def test_interval_is_over_seeds_in_pairs(tmp_path):
    """A constant ratio has no width whatever the seeds do; a scattered one crosses 1 and is no finding."""
    base = [2.0, 3.0, 5.0]
    rows = [row(REGRESSION, s, f) for s, f in enumerate(base)]
    rows += [row(BOTH, s, 0.8 * f) for s, f in enumerate(base)]
    rows += [row("consistency", s, k * f) for s, (k, f) in enumerate(zip((0.5, 1.0, 1.9), base, strict=True))]
    write(tmp_path, rows)
    record = LossRecord.load("losses", "abc", tmp_path)
    assert record.over(BOTH) == pytest.approx((0.8, 0.8, 0.8))
    ratio, low, high = record.over("consistency")
    assert low < ratio < high and low < 1 < high
    assert record.verdict().split("lower beyond chance: ")[1].startswith(f"{BOTH}. ")
    table = record.table().set_index("trial")
    assert table.loc[REGRESSION, "seeds"] == 3 and table.loc[REGRESSION, "Frechet"] == pytest.approx(10 / 3)
    assert table.loc[REGRESSION, "highest Frechet"] == 5.0


def test_trials_are_held_against_the_better_regression(tmp_path):
    base = [2.0, 3.0, 5.0]
    rows = [
        row(name, s, k * f) for name, k in ((REGRESSION, 1.0), (SLOWER, 0.5), (BOTH, 0.8)) for s, f in enumerate(base)
    ]
    write(tmp_path, rows)
    record = LossRecord.load("losses", "abc", tmp_path)
    assert record.alone == SLOWER and record.over(BOTH) == pytest.approx((1.6, 1.6, 1.6))
    assert "none is lower beyond chance" in record.verdict()


def test_growth_reads_smallest_and_largest_budget(tmp_path):
    write(tmp_path, [row(REGRESSION, 0, f, b) for f, b in ((9.0, 1.0), (6.0, 2.0), (4.0, 8.0))], "compute")
    record = LossRecord.load("compute", "abc", tmp_path)
    assert f"{REGRESSION} from 9.0 (1) to 4.0 (8)" in record.growth() and len(record.table()) == 3


def test_one_seed_gives_no_interval(tmp_path):
    write(tmp_path, [row(REGRESSION, 0, 2.0), row(BOTH, 0, 1.0)])
    record = LossRecord.load("losses", "abc", tmp_path)
    assert record.over(BOTH) is None and "no interval" in record.verdict()
