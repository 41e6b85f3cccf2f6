"""Training-free baselines: the count of evaluations is what the network is asked for, and the best is found."""

import dataclasses

import pandas as pd
import pytest
import torch

from mobivid_core.distill.free import (
    FreeBaseline,
    candidates,
    cheapest_equal,
    free_baseline,
    free_table,
    guidances,
    most_steps,
)
from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.sampler import Sampler

SHAPE = (4, 2, 2, 2)
N = 8


@pytest.fixture(scope="module")
def evaluator(linear_evaluator) -> Evaluator:
    return linear_evaluator(n=N, split="val")


@pytest.fixture(scope="module")
def timid(evaluator: Evaluator, recalling) -> torch.nn.Module:
    """Goes a fifth of the way: guidance 5 makes up for it."""
    return recalling(evaluator, N, 0.2)


def test_evaluations_are_what_the_network_is_asked_for(teacher, condition) -> None:
    """Four of them: four unguided steps, two guided ones, three with one guided."""
    asked: list[int] = []
    handle = teacher.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    for guidance, steps in ((1.0, 4), (3.0, 2), (Guidance(3.0, 0.0, 0.4), 3)):
        assert most_steps(guidance, 4) == steps
        asked.clear()
        Sampler("euler", steps, guidance).sample(teacher, condition, torch.randn(len(condition), *SHAPE))
        assert sum(asked) == 4 * len(condition)
    handle.remove()
    assert most_steps(3.0, 1) == 0 and most_steps(3.0, 8) == 4


def test_the_cross_tries_every_guidance_at_the_same_price(teacher, dataset, monkeypatch) -> None:
    from mobivid_core.distill import free
    from mobivid_core.distill.trajectory import condition_of

    monkeypatch.setattr(free, "validation_condition", lambda count, device: condition_of(dataset, torch.arange(count)))
    tried = guidances(3.0)
    assert tried == (Guidance(1.0), Guidance(2.0), Guidance(3.0), Guidance(3.0, 0.2, 0.8))
    assert guidances(Guidance(4.0, rescale=0.7))[2:4] == (Guidance(2.5, rescale=0.7), Guidance(4.0, rescale=0.7))
    assert guidances(1.0)[:1] == (Guidance(1.0),)
    found = candidates(teacher, SHAPE, 8, tried, captions=6)
    assert all(s.evaluations <= 8 for s in found)
    assert {s.guidance for s in found} == set(tried) and len(found) <= 8
    steps = {s.guidance: s.steps for s in found}
    assert steps[tried[0]] == 8 and steps[tried[1]] == steps[tried[2]] == 4 and steps[tried[3]] >= 4


def test_the_best_at_a_price_is_found_on_validation_captions(evaluator: Evaluator, timid: torch.nn.Module) -> None:
    """Without guidance the model stops early, so two guided steps beat four unguided ones."""
    tried = (Guidance(1.0), Guidance(5.0))
    found = free_baseline(evaluator, timid, evaluations=4, tried=tried, coarse=4, finalists=1)
    assert found.best.guidance == Guidance(5.0) and found.best.evaluations == 4
    assert found.table["sampler"][0] == found.best.name and found.table["round"][0] == "final"
    assert (found.table["evaluations"] <= 4).all() and set(found.table["round"]) == {"final", "coarse"}
    assert found.best.name in found.finding() and "4 network evaluations" in found.finding()


def test_the_cheapest_equal_is_the_first_that_cannot_be_told_apart(
    evaluator: Evaluator, timid: torch.nn.Module
) -> None:
    """Paths are straight, so one guided step is as good as 16; one unguided step is not."""
    full = Sampler("euler", 16, 5.0)
    ladder = [Sampler("euler", s, g, shows_scale=True) for s, g in ((8, 5.0), (1, 5.0), (1, 1.0))]
    found = cheapest_equal(evaluator, timid, full, ladder)
    assert found.table["evaluations"].tolist() == [1, 2] and found.table["equal"].tolist() == ["no", "yes"]
    assert (
        found.sampler == ladder[1] and "16.0 times fewer" in found.finding() and found.sampler.name in found.finding()
    )
    assert found.table["n"].tolist() == [N, N]
    halved = cheapest_equal(evaluator, timid, full, ladder, coarse=N - 1)
    assert halved.sampler == ladder[1] and halved.table["n"].tolist() == [N - 1, N]
    none = cheapest_equal(evaluator, timid, full, [Sampler("euler", 40, 5.0)])
    assert none.sampler is full and "No cheaper" in none.finding()


@pytest.mark.parametrize(
    ("change", "ratio", "equal"),
    [
        ((-0.1, -0.2, 0.0), (1.1, 1.0, 1.3), "yes"),  # both intervals just reach "no difference"
        ((-0.1, -0.2, -0.01), (1.0, 0.9, 1.1), "no"),  # less accurate beyond chance
        ((0.0, -0.1, 0.1), (1.2, 1.01, 1.4), "no"),  # farther from the codec's clips beyond chance
    ],
)
def test_equal_is_what_neither_interval_excludes(
    evaluator: Evaluator, timid: torch.nn.Module, monkeypatch, change: tuple, ratio: tuple, equal: str
) -> None:
    from mobivid_core.distill import free

    known = {"kind": "95 % bootstrap", "over": "pairs of clips", "n": N}
    monkeypatch.setattr(free, "mean_change", lambda *_: Interval(*change, **known))
    monkeypatch.setattr(free, "distance_ratio", lambda *_, **__: Interval(*ratio, **known))
    found = cheapest_equal(evaluator, timid, Sampler("euler", 4, 5.0), [Sampler("euler", 1, 5.0)])
    assert found.table["equal"].tolist() == [equal] and (found.sampler is found.full) == (equal == "no")


def test_samplers_are_judged_side_by_side(evaluator: Evaluator, timid: torch.nn.Module) -> None:
    samplers = [Sampler("euler", 2, 5.0), Sampler("euler", 2, 5.0, "diffusers default"), Sampler("euler", 8, 5.0)]
    runs = {s: evaluator.evaluate_sampler(s.on(timid), n=4, keep=0, quality=False, progress=False) for s in samplers}
    chosen = FreeBaseline(pd.DataFrame(), samplers[0], 4)
    judged = free_table(runs, {4: chosen}, ["all_together", evaluator.reference.space.real])
    assert judged.table["sampler"].tolist() == [s.name for s in samplers]
    assert judged.table["evaluations"].tolist() == [4, 4, 16] and judged.chosen == {4: samplers[0].name}
    told = judged.finding()
    assert "4 network evaluations: Euler-2, guided" in told and "the trap Euler-2, diffusers default grid" in told


def test_test_captions_are_not_for_choosing(evaluator: Evaluator, timid: torch.nn.Module) -> None:
    wrong = dataclasses.replace(evaluator, split="test")
    with pytest.raises(ParameterError, match="validation"):
        free_baseline(wrong, timid, evaluations=4)
    with pytest.raises(ParameterError, match="validation"):
        cheapest_equal(wrong, timid, Sampler("euler", 4))
    with pytest.raises(ParameterError, match="do not pay"):
        free_baseline(evaluator, timid, evaluations=1, tried=(Guidance(2.0),))
