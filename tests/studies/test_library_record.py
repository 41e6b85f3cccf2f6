"""The record of the library benchmark: read, summarised and judged; the shipped one is whole."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.measure.bars import bars_table
from mobivid_core.measure.intervals import crossed, over_seeds
from mobivid_core.studies.library_record import (
    CLIPS,
    OURS,
    PRUNING_BARS,
    RECORD,
    Record,
    libraries_told,
    pruning_bars,
)

FACTS = {
    "date": "2026-01-01",
    "teacher": "abc",
    "libraries": ["torch-pruning 1.6.1"],
    "torch": "2.13.0",
    "threads": 1,
    "steps": 3,
    "seeds": 2,
    "judged from index": 7_000_000,
}


def rows():
    recovered = {"torch-pruning Taylor": 0.4, "modelopt FastNAS": 0.5, "block-only by KD": 0.3, OURS: 0.2}
    found = []
    for budget, (arm, value), refit, seed in itertools.product(
        ("0.7", "paper"), recovered.items(), (False, True), (0, 1)
    ):
        value = value / 2 if refit else value
        found.append(
            {
                "arm": arm,
                "budget": budget,
                "refit": refit,
                "seed": seed,
                "share": 0.7,
                "planning seconds": 10 * value + 10 * refit,
                "KD before recovery": 2 * value,
                "KD recovered": value + 0.02 * seed,
                "MiniVBench total": 1 - value,
            }
        )
    refused = {"arm": "head-only by KD", "budget": "paper", "refit": None, "seed": 0, "refused": "below the floor"}
    return pd.DataFrame([*found, refused])


def written(folder, frame):
    frame.to_csv(folder / f"{RECORD}.csv", index=False)
    (folder / f"{RECORD}.json").write_text(json.dumps(FACTS))
    return Record.load(folder)


@pytest.fixture
def record(tmp_path):
    return written(tmp_path, rows())


def test_best_library_and_paired_ratios(record):
    libraries = ("torch-pruning", "modelopt")
    assert record.best("0.7", libraries) == ("torch-pruning Taylor", True)  # the refit is in the rivals' favour
    assert record.best("0.7", libraries, refit=False) == ("torch-pruning Taylor", False)
    taylor = ("torch-pruning Taylor", True)
    found = record.ratio("paper", (OURS, True), taylor)
    assert found == pytest.approx(over_seeds([0.1 / 0.2, 0.12 / 0.22], logs=True)) and found.n == 2
    assert record.gain("paper", (OURS, True), taylor, "MiniVBench total").value == pytest.approx(0.1)
    planning = record.ratio("paper", (OURS, True), ("modelopt FastNAS", False), "planning seconds")
    assert planning.value == pytest.approx(11 / 5) and planning.kind == "no interval"  # planned once for all seeds


def test_plan_and_repair_are_two_claims(record):
    found = pruning_bars(record, "abc")
    assert found["plan_p70"].value == pytest.approx(over_seeds([0.2 / 0.4, 0.22 / 0.42], logs=True).value)
    assert found["library_p70"] == found["refitted_p70"]  # the best library row is a refitted one
    table = bars_table(found, PRUNING_BARS).set_index("measure")
    assert table.loc[PRUNING_BARS["before_p70"].measure, "verdict"] == "missed"
    assert {"interval", "n"} <= set(table.columns)


def test_every_bar_is_the_ratio_that_its_words_say(record):
    """By hand from `rows`: losses of seed 0 and 1 are v and v + .02, with v halved by the refit."""
    loss = lambda v: np.array([v, v + 0.02])  # noqa: E731
    ratio = lambda a, b: np.exp(np.log(loss(a) / loss(b)).mean())  # noqa: E731
    expected = {"library": ratio(0.1, 0.2), "refitted": ratio(0.1, 0.2), "plan": ratio(0.2, 0.4)}
    expected["single"] = ratio(0.1, 0.15)  # block-only, refitted like ours
    found = {name: bar.value for name, bar in pruning_bars(record, "abc").items()}
    for name, value in expected.items():
        assert found[f"{name}_p70"] == found[f"{name}_paper"] == pytest.approx(value), name
    assert found["before_p70"] == pytest.approx(0.2 / 0.4)  # right after the cut: twice v, Taylor's refitted row
    assert found["planning"] == pytest.approx(11 / 5)  # 10 v and 10 for the refit, over FastNAS's without
    assert found["minivbench"] == pytest.approx((1 - 0.1) - (1 - 0.2))


def test_pairs_are_of_the_same_seed_whatever_the_order_of_rows(tmp_path, record):
    shuffled = written(tmp_path, rows().sample(frac=1, random_state=3))
    first = shuffled.rows[shuffled.rows["arm"] == OURS].groupby(["budget", "refit"])["seed"].first()
    assert first.nunique() > 1  # some start with seed 1
    assert pruning_bars(shuffled, "abc") == pruning_bars(record, "abc")


def test_seeds_are_crossed_with_clips_where_the_record_has_them(tmp_path, record):
    draw = np.random.default_rng(0).uniform(0.1, 0.3, size=(4, 8))
    keys = [(arm, seed) for arm in (OURS, "torch-pruning Taylor") for seed in (0, 1)]
    lines = [f'"{a}",0.7,True,{s},{" ".join(map(str, e))}' for (a, s), e in zip(keys, draw, strict=True)]
    (tmp_path / f"{CLIPS}.csv").write_text("\n".join(["arm,budget,refit,seed,errors", *lines]))
    again = Record.load(tmp_path)
    found = again.ratio("0.7", (OURS, True), ("torch-pruning Taylor", True))
    assert found == crossed(draw[:2] / draw[2:], logs=True) and found.kind == "95 % t, 8 clips"
    row = again.table().set_index(["budget", "arm", "refit"]).loc[("0.7", OURS, "yes")]
    assert row["interval"] == f"95 % t, 8 clips, {found.over}" and row["n"] == 2


def test_a_record_of_this_teacher_gives_every_bar(record):
    assert set(pruning_bars(record, "abc")) == set(PRUNING_BARS)
    assert pruning_bars(record, "xyz") == {} and "no ratio is taken" in libraries_told(record, "xyz")  # another teacher
    assert "Chosen after seeing" in record.disclosed()
    assert "no choice has seen" in record.disclosed() and "7,000,000" in libraries_told(record, "abc")


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
    assert set(pruning_bars(record, record.facts["teacher"])) == set(PRUNING_BARS)
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
        found = torch_pruning_plan(teacher, calibration.first(8), budget, importance, against, samples=(2, 4))
        assert 0.7 * budget < found.plan.parameters <= budget
        assert prune(teacher, found.plan).sizes == found.plan.sizes
        assert found.plan.notes["samples"] in (2, 4)
    with pytest.raises(ParameterError, match="unknown importance"):
        torch_pruning_plan(teacher, calibration.first(8), budget, "nothing", against)
