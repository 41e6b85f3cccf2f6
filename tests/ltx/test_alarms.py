"""Alarms ring for what they are named after, never for a good run, and leave the last good weights."""

import math

import pytest
import torch
from safetensors.torch import load_file

from mobivid_core.ltx.alarms import Watch, sample_measures
from mobivid_core.train.distributed import SplitLoss
from mobivid_core.train.loop import TrainSettings, train


def clips(seed=0):
    return torch.randn(4, 6, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def flat(x):
    return x.mean((-2, -1), keepdim=True).expand_as(x)


BROKEN = {
    "saturate": lambda x: 10 * x.sign(),
    "fade to grey": lambda x: 0.1 * x,
    "one solid colour": flat,
    "stand still": lambda x: x[:, :, :1].expand_as(x),
    "the same clip": lambda x: x[:1].expand_as(x),
    "not finite": lambda x: x * float("nan"),
}


def watch(tmp_path, model=None, sample=None, **other):
    return Watch(
        model or torch.nn.Linear(1, 1), sample or (lambda m: clips(1)), clips(), tmp_path / "good.safetensors", **other
    )


def test_measures_of_like_clips_are_near_one():
    assert all(0.8 < value < 1.25 for value in sample_measures(clips(1), clips()).values())


@pytest.mark.parametrize("fault", BROKEN)
def test_each_alarm_rings_for_its_fault(tmp_path, fault):
    alarm = watch(tmp_path, patience=1)
    assert alarm.judge(sample_measures(clips(1), clips())) is None
    assert fault in alarm.judge(sample_measures(BROKEN[fault](clips(1)), clips()))


def test_patience_and_a_student_that_was_never_good(tmp_path):
    alarm, bad = watch(tmp_path, patience=2), sample_measures(BROKEN["stand still"](clips(1)), clips())
    assert alarm.judge(bad) is None and alarm.judge(bad) is None and alarm.judge(bad) is None  # just pruned
    good = sample_measures(clips(1), clips())
    assert alarm.judge(good) is None and alarm.judge(bad) is None and alarm.judge(good) is None  # one slip
    assert alarm.judge(bad) is None and "stand still" in alarm.judge(bad)


def test_a_run_that_goes_bad_ends_with_the_last_good_weights(tmp_path):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    seen = []

    def sample(m):
        seen.append(float(m.weight.detach()))
        return clips(1) if m.weight > 0.5 else flat(clips(1))

    loss = SplitLoss(lambda step, g: (torch.ones(2, 1),), lambda x: model(x).mean())  # pulls the weight down for ever
    alarm = watch(tmp_path, model, sample, patience=1)
    settings = TrainSettings(50, learning_rate=0.1, warmup=1, log_every=1, ema=0.0, weight_decay=0.0)
    result = train(model, loss, settings, progress=False, on_log=alarm)
    assert "solid colour" in result.ended and len(result.log) < 50
    assert alarm.restore() and float(model.weight.detach()) == seen[-2] > 0.5
    assert float(load_file(alarm.good)["weight"]) == seen[-2]


def test_a_loss_that_is_not_finite_ends_the_run_at_once(tmp_path):
    assert "not finite" in watch(tmp_path)({"step": 3, "loss": math.nan})
