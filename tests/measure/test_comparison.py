from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobivid_core.data.captions import label_indices
from mobivid_core.data.render import label_of
from mobivid_core.distill.recipe import Recipe
from mobivid_core.distill.student import STUDENTS
from mobivid_core.errors import ParameterError
from mobivid_core.measure import comparison
from mobivid_core.measure.bars import bars_table
from mobivid_core.measure.comparison import (
    DISTILL_BARS,
    OVER,
    Beside,
    Seconds,
    above_floor,
    beside_table,
    compare,
    distance_ratio,
    mean_change,
    mean_ratio,
    measure_seconds,
)
from mobivid_core.measure.generation import Evaluation
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.minivbench import ClipMeasures, Reference, dimension_table, score
from mobivid_core.measure.quality import ImagingReference
from mobivid_core.profiles import get_profile

LABELS = [label_of("test", i) for i in range(40)]


def _at(value: float, low: float | None = None, high: float | None = None) -> Interval:
    """An interval with its ends, or without width."""
    ends = (value, value) if low is None else (low, high)
    return Interval(value, *ends, kind="95 % bootstrap", over="pairs of clips", n=9)


def measures(right: int, seed: int = 0, shift: float = 0.0) -> ClipMeasures:
    """40 clips of which the first `right` show what was asked for."""
    g = torch.Generator().manual_seed(seed)
    classes = label_indices(LABELS).clone()
    classes[right:, 0] = (classes[right:, 0] + 1) % 3
    ones = torch.ones(40)
    features, imaging = torch.randn(40, 3, generator=g) + shift, torch.rand(40, 3, generator=g) + 0.1
    return ClipMeasures(classes, features, imaging, *(ones,) * 6, borders=1.6 * ones, sharpness=0.3 * ones)


@pytest.fixture()
def reference() -> Reference:
    g = torch.Generator().manual_seed(9)
    codec = torch.randn(200, 3, generator=g)
    return Reference(ImagingReference.fit(torch.rand(40, 3, generator=g) + 0.1), codec + 9, codec)


def test_ratio_of_accuracies(reference):
    value, low, high = mean_ratio(measures(30), measures(40), LABELS, reference, "all_together")
    assert value == pytest.approx(0.75) and low < 0.75 < high <= 1
    same = mean_ratio(measures(30), measures(30), LABELS, reference, "all_together")
    assert same.value == 1 and 0.9 < same.low < 1 < same.high < 1.1  # paired: little luck is left
    assert np.isfinite(mean_ratio(measures(30), measures(0), LABELS, reference, "all_together")).all()


def test_ratio_of_distances(reference):
    near, far = measures(40, 1), measures(40, 1, shift=2.0)
    value, low, high = distance_ratio(far, near, reference)
    assert 1 < low < value < high
    inverse = distance_ratio(near, far, reference)
    assert inverse[0] * value == pytest.approx(1)


def test_what_lies_above_the_floor(reference):
    """Frechet distances of a shift d are d^2 times the axes, on top of the codec's: (4 - 1) / (2.25 - 1) of them."""
    floor, near, far = (measures(40, 1, shift) for shift in (1.0, 1.5, 2.0))
    plain = distance_ratio(far, near, reference)[0]
    value, low, high = above_floor(far, near, floor, reference)
    assert low < value < high and value > plain
    # the mean of 40 clips is off zero by about 0.1, hence the tolerance
    assert value == pytest.approx(3 / 1.25, rel=0.15)
    assert above_floor(floor, floor, floor, reference) == pytest.approx((1.0, 1.0, 1.0))
    assert above_floor(far, near, floor, reference)[0] * above_floor(near, far, floor, reference)[0] == pytest.approx(1)


def test_a_paired_change_has_no_luck_of_the_draw(reference):
    value, low, high = mean_change(measures(30), measures(30), LABELS, reference)
    assert value == 0 and -0.05 < low < 0 < high < 0.05
    assert mean_change(measures(30), measures(40), LABELS, reference)[0] == pytest.approx(-0.25)


def evaluation(right: int, shift: float, reference: Reference) -> Evaluation:
    found = measures(right, 1, shift)
    return Evaluation(score(found, LABELS, reference, resamples=5), found, LABELS, torch.empty(0), 0.0, 0.0)


def test_a_student_is_held_against_teacher_codec_and_free_samplers(reference):
    teacher, weak, strong = (evaluation(*x, reference) for x in ((40, 0.5), (20, 4.0), (30, 0.1)))
    elsewhere = teacher.measures.features + 9  # the floor is the codec's, not the real clips'
    real = replace(teacher.measures, sharpness=2 * teacher.measures.sharpness, features=elsewhere)
    beside = Beside(teacher, {4: weak, 8: strong}, codec=measures(40, 1, 0.2), real=real)
    student = evaluation(36, 1.0, reference)
    found = compare(student, beside, reference)
    assert found["accuracy"][0] == pytest.approx(0.9) and found["above_floor"][0] > found["distance"][0] > 1
    assert found["free4"][0] < 1 < found["free8"][0]
    assert found["above_floor"] == above_floor(student.measures, teacher.measures, beside.codec, reference)
    assert found["free8"] == distance_ratio(student.measures, strong.measures, reference)
    assert found["sharpness"] == pytest.approx((0.5, 0.5, 0.5)) and found["borders"][0] == pytest.approx(1.6)
    assert found["gain4"].value == pytest.approx(0.4) and found["gain8"].value == pytest.approx(0.15)
    same = mean_ratio(teacher.measures, teacher.measures, LABELS, reference, "total")
    assert same == (1, 1, 1) and found["total"].value < 1
    totals = dimension_table(student.measures, LABELS, reference)["total"]
    assert totals.mean() == pytest.approx(student.scores["total"])
    full = found | {"diversity": _at(0.95), "speed": _at(20.0)}
    assert DISTILL_BARS.keys() == set(STUDENTS)
    verdicts = {k: bars_table(full, DISTILL_BARS[k]).set_index("measure")["verdict"] for k in STUDENTS}
    assert all(v.filter(like="training-free").eq("met").all() for v in verdicts.values())
    assert all(v.filter(like="token borders").eq("met").all() for v in verdicts.values())
    assert [v.filter(like="times faster").item() for v in verdicts.values()] == ["missed", "met"]


def test_ratios_are_told_with_their_side():
    own = {"above_floor": _at(1.2, 1.1, 1.3), "free4": _at(0.8, 0.7, 0.9), "free8": _at(1.0, 0.9, 1.1)}
    found = beside_table({"student": own}, _at(1.05, 0.9, 1.2))
    assert set(found.table["n"]) == {9} and set(found.table["interval"]) == {"95 % bootstrap, pairs of clips"}
    assert found.table["over"].tolist() == ["its full sampler", OVER["above_floor"], OVER["free4"], OVER["free8"]]
    told = found.finding()
    assert "4 guided steps over its full sampler 1.05 [0.90, 1.20], within chance" in told
    assert "both above the codec's 1.20 [1.10, 1.30], farther beyond chance" in told and OVER["free8"] not in told
    assert "four evaluations 0.80 [0.70, 0.90], closer beyond chance" in told


def test_pairs_are_checked(reference):
    with pytest.raises(ParameterError, match="same captions"):
        distance_ratio(measures(40), measures(40)[:10], reference)
    with pytest.raises(ParameterError, match="was not measured"):
        distance_ratio(measures(40), measures(40), replace(reference, reconstruction=None))


def test_speed_ratio_of_known_times():
    seconds = Seconds({"a": [4.0, 6.0, 3.0, 4.0, 5.0, 4.0], "b": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]})
    found = seconds.faster("a", "b")
    assert found == pytest.approx((4.0, 3.0, 5.0)) and (found.kind, found.n) == ("97 % of the median", 6)
    assert seconds.table().iloc[0].tolist() == ["a", 4.0, 3.0, 6.0]
    calls = []
    made = measure_seconds({"x": lambda: calls.append(1)}, turns=2, clips=5)
    assert len(calls) == 3 and len(made.taken["x"]) == 2
    turns = []
    measure_seconds({"x": lambda: turns.append("x"), "y": lambda: turns.append("y")}, turns=2, long=["x"])
    assert turns == ["y", *2 * ["x", *5 * "y"]]  # y once untimed


def test_seconds_are_a_clip_and_a_disturbed_short_call_does_not_count(monkeypatch):
    now, lasted = [0.0], {"long": iter([40, 48]), "short": iter([900, *(1, 1, 50, 1, 1), *(60, 2, 2, 2, 2)])}
    monkeypatch.setattr(comparison, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def call(name):
        now[0] += next(lasted[name])

    samplers = {name: lambda name=name: call(name) for name in lasted}
    made = measure_seconds(samplers, turns=2, clips=4, long=["long"])
    assert made.taken == {"long": [10.0, 12.0], "short": [0.25, 0.5]}  # the first short call warms up, untimed


def test_smallest_and_largest_profiles_have_a_recipe():
    for name in ("smoke", "laptop", "gpu"):
        recipe = Recipe.for_profile(get_profile(name))
        assert recipe.teacher_steps % 4 == 0
        assert recipe.regression.steps + recipe.adversarial.steps == get_profile(name).distill_steps
