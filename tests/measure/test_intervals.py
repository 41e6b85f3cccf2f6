"""Intervals: their formulas, their edges, and by simulation whether each kind holds the truth as often as it says."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.studies.coverage import experiments, simulate, worst

DRAWS = 400
#: Two in ten thousand counts of a true 95 % lie further off than this.
ERROR = 3.7 * math.sqrt(0.95 * 0.05 / DRAWS)


def test_every_kind_holds_the_truth_as_often_as_it_says() -> None:
    found = simulate(DRAWS).set_index("interval")["held"]
    assert set(found.index) == experiments().keys() and len(found) >= 15
    wrong = found[(found - 0.95).abs() > ERROR]
    assert wrong.empty, wrong.to_string()


def test_an_interval_is_a_triple_that_knows_what_it_is_over() -> None:
    found = intervals.mean(np.linspace(0, 1, 40))
    value, low, high = found
    assert (value, low, high) == (found.value, found.low, found.high) and low < value < high
    assert (found.kind, found.over, found.n) == ("95 % bootstrap", "clips", 40)
    again = pickle.loads(pickle.dumps(found))
    assert again == found and (again.kind, again.n) == (found.kind, found.n)
    assert str(Interval(1, 0.5, 2, kind="95 % t", over="seeds", n=3)) == "1 [0.5, 2] (95 % t, 3 seeds)"


def test_shares_have_a_width_at_both_ends() -> None:
    whole = intervals.mean(np.ones(256))
    assert whole.kind == "95 % Wilson" and whole.high == 1
    z = stats.norm.ppf(0.975)
    assert whole.low == pytest.approx(256 / (256 + z**2))  # Wilson's at p = 1
    assert intervals.share(0, 10).low == 0 < intervals.share(0, 10).high
    for right, n in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(ParameterError, match="a share needs"):
            intervals.share(right, n)


def test_seeds_follow_student() -> None:
    values = [0.30, 0.42, 0.33]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert intervals.over_seeds(values) == pytest.approx((0.35, low, high))
    logs = intervals.over_seeds(values, logs=True)
    low, high = np.exp(stats.t.interval(0.95, 2, np.log(values).mean(), stats.sem(np.log(values))))
    assert logs == pytest.approx((stats.gmean(values), low, high)) and logs.n == 3
    with pytest.raises(ParameterError, match="two or more"):
        intervals.over_seeds([1.0])


def test_means_of_few_are_widened_to_students_size() -> None:
    values = np.random.default_rng(0).normal(size=8)
    found = intervals.mean(values, resamples=20_000)
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert found.high - found.low == pytest.approx(high - low, rel=0.08)


def test_crossed_intervals_see_both_seeds_and_clips() -> None:
    rng = np.random.default_rng(0)
    clips, seeds = rng.normal(size=(1, 100)), np.linspace(-1, 1, 20)[:, None]
    only_seeds, only_clips = np.broadcast_to(seeds, (20, 100)), np.broadcast_to(clips, (20, 100))
    assert intervals.crossed(only_seeds) == pytest.approx(intervals.over_seeds(seeds[:, 0]))
    one = intervals.crossed(only_clips + 1e-9 * rng.normal(size=(20, 100)))
    low, high = stats.t.interval(0.95, 99, clips.mean(), stats.sem(clips[0]))
    assert one == pytest.approx((clips.mean(), low, high), rel=1e-3)
    both = intervals.crossed(only_seeds + only_clips)
    assert both.high - both.low > intervals.crossed(only_seeds).high - intervals.crossed(only_seeds).low
    with pytest.raises(ParameterError, match="two or more of each"):
        intervals.crossed(np.ones((1, 9)))


def test_crossed_intervals_are_the_analysis_of_variance_by_hand() -> None:
    # Row means 3 and 5, column means 1.5, 4 and 6.5, residuals of .5, 0 and -.5: mean squares 6, 12.5 and .5.
    table = np.array([[1.0, 3.0, 5.0], [2.0, 5.0, 8.0]])
    degrees = (6 + 12.5 - 0.5) ** 2 / (6**2 / 1 + 12.5**2 / 2 + 0.5**2 / 2)
    half = stats.t.ppf(0.975, degrees) * math.sqrt((6 + 12.5 - 0.5) / 6)
    found = intervals.crossed(table)
    assert found == pytest.approx((4, 4 - half, 4 + half)) and found.n == 2  # seeds, not values
    logs = intervals.crossed(np.exp(table), logs=True)
    assert logs == pytest.approx(np.exp([4, 4 - half, 4 + half]))
    # Column means are equal: clips vary less than the rest (0 against 1), so the two seeds alone are left.
    assert intervals.crossed([[1.0, 2.0], [5.0, 4.0]]) == pytest.approx(intervals.over_seeds([1.5, 4.5]))


def test_centred_draws_are_students_around_the_value() -> None:
    draws = np.array([1.0, 2.0, 4.0, 5.0])  # three degrees of freedom, variance 10 / 3; four clips widen it by 4 / 3
    half = 3.182446 * math.sqrt(10 / 3 * 4 / 3)
    assert intervals.from_draws(9.0, draws, n=4, centred=True) == pytest.approx((9, 9 - half, 9 + half))


def test_pairs_leave_out_what_both_sides_share() -> None:
    scores = np.linspace(0.1, 0.9, 30)
    assert intervals.difference(scores + 0.05, scores) == pytest.approx((0.05, 0.05, 0.05))
    assert intervals.ratio(0.4 * scores, scores) == pytest.approx((0.4, 0.4, 0.4))


def test_unpaired_shares_are_newcombes_example() -> None:
    ours, theirs = np.arange(70) < 56, np.arange(80) < 48
    found = intervals.unpaired_difference(ours, theirs)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)  # Newcombe (1998), table II, example a, method 10
    assert intervals.unpaired_difference(theirs, ours) == pytest.approx((-0.2, -0.3339, -0.0524), abs=5e-5)
    assert found.n == 70


def test_pairs_of_right_and_wrong() -> None:
    a, b = np.array([1.0] * 90 + [0.0] * 10), np.array([1.0] * 80 + [0.0] * 20)
    change = intervals.difference(a, b)
    # Agresti and Min (2005): 10 and 0 discordant pairs of 100
    middle, half = 10 / 102, 1.959964 * math.sqrt((11 / 102 - (10 / 102) ** 2) / 102)
    assert change == pytest.approx((0.1, middle - half, middle + half), abs=1e-6)
    quotient = intervals.ratio(a, b)
    assert quotient.value == pytest.approx(90 / 80) and quotient.low < 9 / 8 < quotient.high
    # 80 pairs right in both, 10 and 0 discordant, half a pair added to each: 91 over 81
    middle, half = math.log(91 / 81), 1.959964 * math.sqrt(11 / (91 * 81))
    assert quotient[1:] == pytest.approx((math.exp(middle - half), math.exp(middle + half)), rel=1e-6)
    reverse = intervals.ratio(b, a)
    assert (1 / reverse.high, 1 / reverse.low) == pytest.approx((quotient.low, quotient.high))
    same = intervals.difference(a, a)
    assert same.low < 0 == same.value < same.high  # a hundred clips without a difference do not exclude one
    assert intervals.ratio(np.ones(9), np.zeros(9)).value == 9  # nothing right counts as one of nine
    with pytest.raises(ParameterError, match="as many on both sides"):
        intervals.ratio(a, b[:5])


def test_speeds_of_one_run_say_so() -> None:
    slow, fast = [[10.0, 12.0, 11.0, 30.0, 9.0, 11.0]], [[1.0] * 6]
    one = intervals.speed(slow, fast)
    assert one == pytest.approx((11, 9, 30)) and one.over == "repeats in one run"
    assert one.kind == "97 % of the median"  # 1 - 2 / 2^6
    eight = intervals.speed([range(1, 9)], [[1.0] * 8])
    # The second smallest of eight misses the median in 2 * 9 / 256 of all cases, 7 %: the ends are the extremes.
    assert eight == pytest.approx((math.sqrt(4 * 5), 1, 8)) and eight.kind == "99 % of the median"
    three = intervals.speed(slow * 3, fast * 3)
    assert three.over == "runs" and three == pytest.approx((11, 11, 11))
    assert intervals.speed([[2.0]], [[1.0]]).kind == "0 % of the median"
    with pytest.raises(ParameterError, match="same repeats"):
        intervals.speed(slow, [[1.0]])


def test_rank_correlations() -> None:
    a = np.arange(30.0)
    assert intervals.rank_correlation(a, np.exp(a / 9)) == pytest.approx((1, 1, 1), abs=1e-6)
    found = intervals.rank_correlation(a, np.roll(a, 7))
    half = 1.959964 * math.sqrt((1 + found.value**2 / 2) / 27)  # Bonett and Wright (2000)
    assert math.atanh(found.high) - math.atanh(found.value) == pytest.approx(half, rel=1e-5)
    assert math.isnan(intervals.rank_correlation(a, np.ones(30)).value)
    with pytest.raises(ParameterError, match="at least 3"):
        intervals.rank_correlation([1, 2], [1, 2])


def test_the_worst_kind_is_the_one_that_held_least() -> None:
    table = pd.DataFrame({"held": [0.96, 0.9, 0.99], "draws": 100})
    assert worst(table) == intervals.share(90, 100) and worst(table).n == 100


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ParameterError, match="at least one value"):
        intervals.mean(np.array([]))
