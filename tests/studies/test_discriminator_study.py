"""Trials of the adversarial stage: what each changes, and the record that the notebook reads."""

import json

import pandas as pd
import pytest
import torch

from mobivid_core.distill.discriminator import default_depths
from mobivid_core.errors import CheckpointError
from mobivid_core.studies.discriminator_study import load_study, trials


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
