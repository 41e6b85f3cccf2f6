from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.data.captions import label_indices
from mobivid_core.data.render import label_of
from mobivid_core.distill.comparison import (
    DISTILL_BARS,
    compare,
    frechet_ratio,
    mean_ratio,
    seconds_table,
    speed_ratio,
)
from mobivid_core.distill.recipe import Recipe
from mobivid_core.distill.student import STUDENTS
from mobivid_core.errors import ParameterError
from mobivid_core.evaluate.bars import bars_table
from mobivid_core.evaluate.generation import Evaluation
from mobivid_core.evaluate.minivbench import ClipMeasures, Reference
from mobivid_core.evaluate.quality import ImagingReference
from mobivid_core.profiles import get_profile

LABELS = [label_of("test", i) for i in range(40)]


def measures(right: int, seed: int = 0, shift: float = 0.0) -> ClipMeasures:
    """40 clips of which the first `right` show what was asked for."""
    g = torch.Generator().manual_seed(seed)
    classes = label_indices(LABELS).clone()
    classes[right:, 0] = (classes[right:, 0] + 1) % 3
    ones = torch.ones(40)
    return ClipMeasures(
        classes, torch.randn(40, 3, generator=g) + shift, torch.rand(40, 3, generator=g) + 0.1, *(ones,) * 6
    )


@pytest.fixture()
def reference() -> Reference:
    g = torch.Generator().manual_seed(9)
    features = torch.randn(200, 3, generator=g)
    return Reference(ImagingReference.fit(torch.rand(40, 3, generator=g) + 0.1), features, features)


def test_ratio_of_accuracies(reference):
    value, low, high = mean_ratio(measures(30), measures(40), LABELS, reference, "all_together")
    assert value == pytest.approx(0.75) and low < 0.75 < high <= 1
    same = mean_ratio(measures(30), measures(30), LABELS, reference, "all_together")
    assert same == (1.0, 1.0, 1.0)  # paired: no luck is left
    assert np.isfinite(mean_ratio(measures(30), measures(0), LABELS, reference, "all_together")).all()


def test_ratio_of_distances(reference):
    near, far = measures(40, 1), measures(40, 1, shift=2.0)
    value, low, high = frechet_ratio(far, near, reference)
    assert 1 < low < value < high
    inverse = frechet_ratio(near, far, reference)
    assert inverse[0] * value == pytest.approx(1)


def evaluation(right: int, shift: float = 0.0) -> Evaluation:
    return Evaluation(None, measures(right, 1, shift), LABELS, torch.empty(0), 0.0, 0.0)


def test_a_student_is_held_against_the_rival_it_beats_least(reference):
    teacher, weak, strong = evaluation(40), evaluation(20, 4.0), evaluation(30, 0.1)
    found = compare(evaluation(36, 1.0), teacher, [weak, strong], reference)
    assert found["accuracy"][0] == pytest.approx(0.9) and found["frechet"][0] > 1
    over_strong = frechet_ratio(measures(36, 1, 1.0), strong.measures, reference)[0]
    assert found["free"][0] == pytest.approx(over_strong) and over_strong > 1
    assert compare(evaluation(36, 1.0), teacher, [weak], reference)["free"][0] < 1
    full = found | {"diversity": (0.95,) * 3, "speed": (20.0,) * 3}
    assert DISTILL_BARS.keys() == set(STUDENTS)
    verdicts = {k: bars_table(full, DISTILL_BARS[k]).set_index("measure")["verdict"] for k in STUDENTS}
    assert all(v.filter(like="training-free").eq("missed").all() for v in verdicts.values())
    assert [v.filter(like="times faster").item() for v in verdicts.values()] == ["missed", "met"]


def test_pairs_are_checked(reference):
    with pytest.raises(ParameterError, match="same captions"):
        frechet_ratio(measures(40), measures(40)[:10], reference)
    with pytest.raises(ParameterError, match="no reconstructed"):
        frechet_ratio(measures(40), measures(40), replace(reference, reconstruction=None))


def test_speed_ratio_of_known_times():
    table = pd.DataFrame({"sampler": ["a", "b"], "seconds": [4.0, 1.0], "fastest": [3.0, 0.5], "slowest": [6.0, 2.0]})
    assert speed_ratio(table, "a", "b") == (4.0, 1.5, 12.0)
    calls = []
    made = seconds_table({"x": lambda: calls.append(1)}, repeats=2, clips=5)
    assert len(calls) == 3 and list(made["sampler"]) == ["x"]
    turns = []
    seconds_table({"x": lambda: turns.append("x"), "y": lambda: turns.append("y")}, repeats=2, long=["x"])
    assert turns == ["y", *2 * ["x", *5 * "y"]]  # y once untimed


def test_smallest_and_largest_profiles_have_a_recipe():
    for name in ("smoke", "laptop", "gpu"):
        recipe = Recipe.for_profile(get_profile(name))
        assert recipe.teacher_steps % 4 == 0
        assert recipe.regression.steps + recipe.adversarial.steps == get_profile(name).distill_steps
