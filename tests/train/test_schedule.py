"""Schedules by steps and by time."""

import pytest

from mobivid_core.train.loop import TrainSettings


def test_a_held_rate_does_not_depend_on_the_length_of_the_run():
    short, long = (TrainSettings(steps, warmup=10, hold=0.7, final_rate=0.02) for steps in (100, 400))
    assert [short.rate(s) for s in range(70)] == [long.rate(s) for s in range(70)]
    assert short.rate(69) == 1.0 > short.rate(85) > short.rate(99)
    assert short.rate(100) == pytest.approx(short.final_rate)


def test_time_moves_the_rate_as_steps_do():
    falling = {"warmup": 0, "hold": 0.5, "final_rate": 0.0}
    by_steps, by_time = TrainSettings(100, **falling), TrainSettings(100, seconds=60.0, **falling)
    for share in (0.3, 0.5, 0.75, 1.0):
        assert by_time.rate(20, share * 60) == pytest.approx(by_steps.rate(round(share * 100)))
    assert by_time.position(20, 60.0) == 100 and by_time.position(100, 6.0) == 100  # what comes first
    assert by_time.rate(50, 90.0) == pytest.approx(0)  # a last step that took too long


def test_warm_up_goes_by_steps():
    assert TrainSettings(1000, seconds=10.0, warmup=5).rate(0, 0.01) == pytest.approx(0.2)
