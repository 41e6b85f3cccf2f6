"""Trials of the adversarial stage: what each changes, and the record that the notebook reads."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.distill.discriminator import default_depths
from mobivid_core.errors import CheckpointError
from mobivid_core.measure.intervals import over_seeds
from mobivid_core.studies.discriminator_study import (
    SCRATCH,
    load_study,
    mixed_over_either,
    over_trial,
    study_table,
    trials,
)


def test_each_trial_changes_one_thing(teacher):
    blocks = teacher.sizes.blocks
    found = trials("heads", blocks)
    plain = next(iter(found.values()))
    assert plain[0] == {} and plain[2] == 0.5
    for title, (changes, build, share) in found.items():
        heads = build(teacher)
        own = heads._teacher[0] is not teacher
        depths = heads.depths != default_depths(blocks)
        kind = heads.heads[0].mix.kernel_size != plain[1](teacher).heads[0].mix.kernel_size
        assert share == 0.5
        assert sum([bool(changes), own, depths, kind]) == (0 if title == next(iter(found)) else 1), title
    fresh = found["network with random weights"][1](teacher)._teacher[0]
    assert not any(p.requires_grad for p in fresh.parameters())
    assert not torch.equal(fresh.proj_in.weight, teacher.proj_in.weight)
    assert [share for _, _, share in trials("share", blocks).values()] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_record_says_where_it_comes_from(tmp_path):
    with pytest.raises(CheckpointError, match="mobivid study share"):
        load_study("share", "abc", tmp_path)
    pd.DataFrame({"trial": ["0% synthetic"], "Frechet / start": [0.9]}).to_csv(tmp_path / "distill_share.csv")
    facts = {"date": "2026-01-01", "teacher": "abc", "updates": 3, "clips": 4, "seeds": 1}
    (tmp_path / "distill_share.json").write_text(json.dumps(facts))
    rows, source = load_study("share", "abc", tmp_path)
    assert len(rows) == 1 and "3 updates" in source and "ANOTHER" not in source
    assert "ANOTHER TEACHER" in load_study("share", "xyz", tmp_path)[1]


def _rows(**distances):
    """A row a trial and seed; distances over the start's, one a seed."""
    rows = [
        {"trial": name, "seed": seed, "Frechet / start": value, "all together": 0.5}
        for name, values in distances.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_trials_are_compared_in_pairs_of_seeds():
    """Seeds of very different size, the same ratio in each: the geometric mean, no width."""
    base = np.array([1.0, 2.0, 8.0])
    rows = _rows(**{"teacher features, blocks 1": 0.8 * base, SCRATCH: base})
    shuffled = rows.sample(frac=1, random_state=1)
    assert over_trial(shuffled, "teacher features", SCRATCH) == pytest.approx((0.8, 0.8, 0.8))
    uneven = _rows(**{"teacher features, blocks 1": base * [0.5, 1, 1.5], SCRATCH: base})
    found = over_trial(uneven, "teacher features", SCRATCH)
    assert found == pytest.approx(over_seeds([0.5, 1, 1.5], logs=True)) and found.n == 3
    one = over_trial(rows[rows["seed"] == 0], "teacher features", SCRATCH)
    assert one.value == pytest.approx(0.8) and np.isnan(one.low) and one.n == 1


@pytest.mark.parametrize(("none", "all_of_it", "ratio"), [(0.9, 0.6, 1.25), (0.6, 0.9, 1.25), (1.0, 0.75, 1.0)])
def test_half_synthetic_is_held_against_the_better_of_either(none, all_of_it, ratio):
    shares = {"0% synthetic": none, "50% synthetic": 0.75, "100% synthetic": all_of_it}
    rows = _rows(**{name: np.full(3, value) for name, value in shares.items()})
    assert mixed_over_either(rows).value == pytest.approx(ratio)


def test_only_intervals_without_one_differ_beyond_chance():
    base, scatter = np.array([1.0, 1.1, 1.2]), [0.5, 1.0, 1.9]
    trial = {"no adversarial term": base, "lower": 0.8 * base * [1, 1.01, 0.99], "higher": 1.3 * base}
    found = study_table(_rows(**trial, unsure=base * scatter), "Source.", "heads")
    assert "2 of 3 trials differ from 'no adversarial term' beyond chance" in found.finding
