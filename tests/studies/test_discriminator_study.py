"""Trials of the discriminator: what each changes, how pairs are judged, and the record that the notebook reads."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.data.latents import LatentDataset
from mobivid_core.distill.adversarial import RealPool
from mobivid_core.distill.discriminator import TeacherDiscriminator, default_depths
from mobivid_core.distill.recipe import Recipe
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import collect_trajectories, condition_of
from mobivid_core.errors import CheckpointError
from mobivid_core.measure.intervals import over_seeds
from mobivid_core.profiles import get_profile
from mobivid_core.studies.discriminator_study import (
    BOTH,
    REAL,
    SCRATCH,
    TEACHERS,
    Pairs,
    gain_over,
    load_study,
    mixed_over_either,
    run_trial,
    study_table,
    trials,
)

SHAPE = (4, 2, 2, 2)
COUNT = 48


def test_a_trial_s_settings_differ_from_the_recipe_s():
    usual = Recipe.for_profile(get_profile("laptop")).adversarial
    for changes, _, _ in trials("heads", 10).values():
        assert all(getattr(usual, name) != value for name, value in changes.items())


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
    fresh = found[SCRATCH][1](teacher)._teacher[0]
    assert not any(p.requires_grad for p in fresh.parameters())
    assert not torch.equal(fresh.proj_in.weight, teacher.proj_in.weight)
    assert [share for _, _, share in trials("share", blocks).values()] == [0.0, 0.25, 0.5, 0.75, 1.0]


class Level(torch.nn.Module):
    """A discriminator that calls the brighter clip real."""

    def forward(self, noisy, sigma, text, mask):
        return noisy.mean(dim=(1, 2, 3, 4)).unsqueeze(1).expand(-1, 3)


def test_pairs_are_judged_at_the_same_noise():
    """Brighter by a hair: noise shared by a pair cancels, so every pair is told as its clips say."""
    base, hair = torch.randn(6, *SHAPE), torch.tensor([1e-2, 1e-2, 1e-2, -1e-2, -1e-2, -1e-2]).view(-1, 1, 1, 1, 1)
    pairs = Pairs(base + hair, base + 1e-2, base, torch.zeros(6, 3, 10), torch.ones(6, 3, dtype=torch.bool))
    found = pairs.told_apart(Level(), seed=0)
    assert found == {REAL: 0.5, TEACHERS: 1.0, BOTH: 0.75}
    assert pairs.told_apart(Level(), seed=0, batch=4) == found


def test_trained_heads_tell_clips_apart_and_the_global_stream_stays(teacher):
    """The student goes half as far as the teacher: after training its clips are told from the teacher's."""
    teacher = copy.deepcopy(teacher).requires_grad_(False)  # the fixture serves other tests, without gradients
    text, mask, every = torch.randn(COUNT, 3, 10), torch.ones(COUNT, 3, dtype=torch.bool), torch.arange(COUNT)
    held_out = LatentDataset(torch.randn(COUNT, *SHAPE), text, mask, every[:, None], [], text[:1], mask[:1])
    walked = collect_trajectories(teacher, condition_of(held_out, every), SHAPE, steps=4, guidance=3.0)
    student, pool = Halved(teacher).eval(), RealPool(held_out, walked)
    pairs = Pairs.of(student, held_out, walked, batch=32)
    assert pairs.students.std() < 0.8 * pairs.teachers.std()
    settings = DistillSettings(60, batch=16, r1_weight=0.0, discriminator_rate=3e-3, seed=1)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trial = ({}, lambda network: TeacherDiscriminator(network, (1,), width=8), 1.0)
    found = run_trial(student, teacher, pool, pairs, settings, trial)
    assert torch.equal(torch.rand(1), expected)
    assert found[TEACHERS] > 0.9 and found[BOTH] == pytest.approx((found[REAL] + found[TEACHERS]) / 2)
    again = run_trial(student, teacher, pool, pairs, settings, trial)
    assert again == found


class Halved(torch.nn.Module):
    """Walks straight to half of what the guided teacher's one step gives."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher

    def forward(self, x, timestep, text, mask):
        sigma = (timestep / 1000).view(-1, 1, 1, 1, 1)
        v = self.teacher(x, timestep, text, mask).sample
        return v + 0.5 * (x - sigma * v) / sigma


def test_record_says_where_it_comes_from(tmp_path):
    with pytest.raises(CheckpointError, match="mobivid study share"):
        load_study("share", "abc", tmp_path)
    row = {"trial": ["0% synthetic"], REAL: [0.9], TEACHERS: [0.5], BOTH: [0.7]}
    pd.DataFrame(row).to_csv(tmp_path / "distill_share.csv")
    facts = {"date": "2026-01-01", "teacher": "abc", "updates": 3, "clips": 4, "seeds": 1}
    (tmp_path / "distill_share.json").write_text(json.dumps(facts))
    rows, source = load_study("share", "abc", tmp_path)
    assert len(rows) == 1 and "3 updates" in source and "ANOTHER" not in source
    assert "ANOTHER TEACHER" in load_study("share", "xyz", tmp_path)[1]
    pd.DataFrame({"trial": ["0% synthetic"], "Frechet / start": [0.9]}).to_csv(tmp_path / "distill_share.csv")
    with pytest.raises(CheckpointError, match="lacks the columns"):
        load_study("share", "abc", tmp_path)


def _rows(**told):
    """A row a trial and seed; pairs told apart, one a seed."""
    rows = [
        {"trial": name, "seed": seed, REAL: value, TEACHERS: value, BOTH: value}
        for name, values in told.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_trials_are_compared_in_pairs_of_seeds():
    """Seeds of very different difficulty, the same gain in each: no width."""
    base = np.array([0.5, 0.6, 0.8])
    rows = _rows(**{"teacher features, blocks 1": base + 0.1, SCRATCH: base})
    shuffled = rows.sample(frac=1, random_state=1)
    assert gain_over(shuffled, "teacher features", SCRATCH) == pytest.approx((0.1, 0.1, 0.1))
    uneven = _rows(**{"teacher features, blocks 1": base + [0.0, 0.1, 0.2], SCRATCH: base})
    found = gain_over(uneven, "teacher features", SCRATCH)
    assert found == pytest.approx(over_seeds([0.0, 0.1, 0.2])) and found.n == 3
    one = gain_over(rows[rows["seed"] == 0], "teacher features", SCRATCH)
    assert one.value == pytest.approx(0.1) and np.isnan(one.low) and one.n == 1


@pytest.mark.parametrize(("none", "all_of_it", "gain"), [(0.9, 0.6, -0.15), (0.6, 0.9, -0.15), (0.7, 0.75, 0.0)])
def test_half_synthetic_is_held_against_the_better_of_either(none, all_of_it, gain):
    shares = {"0% synthetic": none, "50% synthetic": 0.75, "100% synthetic": all_of_it}
    rows = _rows(**{name: np.full(3, value) for name, value in shares.items()})
    assert mixed_over_either(rows).value == pytest.approx(gain)


def test_only_intervals_without_zero_differ_beyond_chance():
    base = np.array([0.7, 0.72, 0.74])
    trial = {"teacher features": base, "lower": base - [0.1, 0.11, 0.09], "higher": base + [0.1, 0.11, 0.12]}
    found = study_table(_rows(**trial, unsure=base + [0.1, -0.1, 0.05]), "Source.", "heads")
    assert "2 of 3 trials differ from 'teacher features' beyond chance" in found.finding
    assert "from 62% to 83%" in found.finding
