"""Choosing guidance on validation captions, with a model whose best guidance is known by construction."""

import dataclasses

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.guidance_choice import choose_guidance, rank, real_spread, screen
from mobivid_core.measure.minivbench import Scores
from mobivid_core.profiles import get_profile

PROFILE = get_profile("smoke")
N = 32


@pytest.fixture(scope="module")
def evaluator(linear_evaluator) -> Evaluator:
    return linear_evaluator(n=N, split="val")


@pytest.fixture(scope="module")
def model(evaluator: Evaluator, recalling) -> torch.nn.Module:
    """Goes half of the way: guidance 2 makes up for it, and more overshoots."""
    return recalling(evaluator, N, 0.5)


def test_the_guidance_that_makes_real_latents_is_chosen(evaluator: Evaluator, model: torch.nn.Module) -> None:
    """At gain 1/2 the velocity stops half-way: guidance 2 makes up for it exactly, 8 quadruples the latents."""
    settings = (0.5, 2.0, 8.0, Guidance(8.0, 0.0, 0.4))
    found = choose_guidance(evaluator, model, settings=settings, steps=4)
    assert found.best == Guidance(2.0) and found.table["guidance"][0] == "2"
    rows = found.table.set_index("guidance")
    assert rows.loc["2", "spread"] == pytest.approx(1, abs=0.02)
    assert rows.loc["8", "spread"] == pytest.approx(4, rel=0.03)  # the codec's mean is not quite 0
    assert rows["evaluations"].to_dict() == {"0.5": 8, "2": 8, "8": 8, "8 at sigma 0 to 0.4": 5}
    assert (rows["n"] == N).all() and set(rows["round"]) == {"final"}
    assert "guidance 2" in found.finding() and "not tried" in found.finding()
    again = choose_guidance(evaluator, model, settings=settings, steps=4)
    assert again.best == found.best and again.table["spread"].tolist() == pytest.approx(found.table["spread"].tolist())


def test_a_coarse_round_saves_clips_and_keeps_the_best(evaluator: Evaluator, model: torch.nn.Module) -> None:
    found = choose_guidance(evaluator, model, settings=(0.5, 2.0, 8.0), steps=2, coarse=16, finalists=1)
    assert found.best == Guidance(2.0)
    assert found.table[["guidance", "n", "round"]].iloc[0].tolist() == ["2", N, "final"]
    assert found.table["round"].tolist() == ["final", "coarse", "coarse"] and found.table["n"].tolist()[1:] == [16, 16]


def test_test_captions_are_not_for_choosing(evaluator: Evaluator, model: torch.nn.Module) -> None:
    with pytest.raises(ParameterError, match='split="val"'):
        choose_guidance(dataclasses.replace(evaluator, split="test"), model)


def test_real_latents_have_a_spread(evaluator: Evaluator) -> None:
    assert real_spread(evaluator) > 0.3  # latents are normalised on other clips


class _Run:
    def __init__(self, right: tuple[float, float, float], distance: float) -> None:
        distances = {"frechet_reconstruction": (distance,) * 3, "frechet_real": (0.0,) * 3}
        self.scores = Scores({"all_together": right, "color": right, **distances}, 8)


def test_ties_in_accuracy_are_settled_by_distance(evaluator: Evaluator) -> None:
    runs = {
        "accurate": _Run((0.9, 0.85, 0.95), 9.0),
        "as accurate and closer": _Run((0.88, 0.83, 0.93), 5.0),
        "closest but worse": _Run((0.5, 0.4, 0.6), 1.0),
        "worst": _Run((0.2, 0.1, 0.3), 2.0),
    }
    order = ["as accurate and closer", "accurate", "closest but worse", "worst"]
    assert rank(runs, evaluator.reference) == order
    settings = {name: lambda _, run=run: run for name, run in runs.items()}
    table, best = screen(settings, lambda name: {"name": name}, evaluator, coarse=4, finalists=2)
    assert best == order[0] and table["name"].tolist() == order
    assert table["round"].tolist() == ["final", "final", "coarse", "coarse"]
    with pytest.raises(ParameterError, match="a setting and a finalist"):
        screen({}, dict, evaluator)
