"""The adversarial study: equal search of both arms, the choice on validation rows alone, and the recorded ratio."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from mobivid_core.studies.adversarial_study import ALONE, FINAL, SEARCH, SETTINGS, WITH, AdversarialRecord, chosen

FACTS = {"date": "2026-11-29", "teacher": "abc", "torch": "2", "tflop": 40.0, "clips": 256, "seeds": 3}


def row(name: str, rate: float, weight: float, right: float, distance: float, seed: int = 0) -> dict:
    trial = WITH if weight else ALONE
    return {
        "round": name, "trial": trial, "seed": seed, "rate": rate, "weight": weight, "updates": 9,
        "all together": right, "Frechet": distance, "sharpness": 0.01,
    }  # fmt: skip


def test_both_arms_try_as_many_settings() -> None:
    assert len(set(SETTINGS)) == len(SETTINGS)
    assert len(set(Counter(s.trial for s in SETTINGS).values())) == 1


def test_the_choice_looks_at_validation_rows_alone() -> None:
    rows = [
        row(SEARCH, 1e-4, 0.0, 0.95, 30.0), row(SEARCH, 3e-4, 0.0, 0.94, 25.0), row(SEARCH, 1e-3, 0.0, 0.80, 10.0),
        row(SEARCH, 1e-4, 0.1, 0.90, 28.0), row(FINAL, 9.0, 0.1, 0.99, 1.0, 1),
    ]  # fmt: skip
    alone, both = chosen(pd.DataFrame(rows))
    assert (alone.rate, alone.weight) == (3e-4, 0.0), "the nearest that is not much less right"
    assert (both.rate, both.weight) == (1e-4, 0.1)


def test_the_ratio_is_paired_over_the_seeds_of_the_final_round(tmp_path: Path) -> None:
    rows = [row(SEARCH, 1e-4, w, 0.9, d) for w, d in ((0.0, 50.0), (0.1, 5.0))]
    for seed, base in enumerate((20.0, 30.0, 40.0), start=1):
        rows += [row(FINAL, 1e-4, 0.0, 0.9, base, seed), row(FINAL, 1e-4, 0.1, 0.9, 0.9 * base, seed)]
    pd.DataFrame(rows).to_csv(tmp_path / "distill_adversarial.csv", index=False)
    (tmp_path / "distill_adversarial.json").write_text(json.dumps(FACTS))
    record = AdversarialRecord.load("abc", tmp_path)
    assert record.over() == pytest.approx((0.9, 0.9, 0.9)) and record.over().n == 3
    assert "distance 30.0" in record.table().finding and "this teacher" in record.table().finding
    assert "ANOTHER TEACHER" in AdversarialRecord.load("other", tmp_path).table().finding
