"""Training loop: resumes to the step, survives interruptions, reports divergence."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mobivid_core.errors import CheckpointError, RunError, TrainingError
from mobivid_core.train import loop
from mobivid_core.train.loop import Player, TrainSettings, train


def _model():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def _loss(model):
    target = torch.arange(12.0).reshape(3, 4) / 10

    def loss(step, generator):
        x = torch.randn(8, 4, generator=generator)
        return (model(x) - x @ target.T).square().mean()

    return loss


def _run(steps, folder=None, stop=None, **settings):
    model = _model()
    inner = _loss(model)

    def loss(step, generator):
        if step == stop:
            raise KeyboardInterrupt
        return inner(step, generator)

    return model, train(
        model,
        loss,
        TrainSettings(steps, learning_rate=0.05, warmup=5, ema=0.9, log_every=10, **settings),
        folder,
        progress=False,
    )


def test_loss_falls():
    _, result = _run(200)
    assert result.log[-1]["loss"] < 0.05 * result.log[0]["loss"]


def test_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, _ = _run(40)
    with pytest.raises(KeyboardInterrupt):
        _run(40, tmp_path, stop=23)
    resumed, result = _run(40, tmp_path)
    assert torch.equal(whole.weight, resumed.weight)
    assert [row["step"] for row in result.log] == [1, 11, 21, 31, 40]


def test_finished_run_is_not_trained_again(tmp_path):
    first, _ = _run(20, tmp_path)
    again, _ = _run(20, tmp_path, stop=0)  # any step would raise
    assert torch.equal(first.weight, again.weight)


def test_averaged_weights_follow_the_model():
    model, result = _run(300)
    assert not torch.equal(model.weight, result.averaged.weight)
    torch.testing.assert_close(model.weight, result.averaged.weight, atol=0.02, rtol=0.02)


def test_a_single_bad_step_is_skipped_and_divergence_is_reported(tmp_path):
    model = _model()
    good = _loss(model)
    once = train(model, lambda s, g: good(s, g) * (float("nan") if s == 3 else 1), TrainSettings(20), progress=False)
    assert torch.isfinite(model.weight).all() and len(once.log)
    with pytest.raises(TrainingError, match="not finite for 10 steps up to step 14.*lower the learning rate"):
        train(
            model,
            lambda s, g: good(s, g) * (float("nan") if s >= 5 else 1),
            TrainSettings(40),
            tmp_path,
            progress=False,
        )
    assert torch.isfinite(model.weight).all()


def test_corrupt_state_is_one_clear_error(tmp_path):
    _run(10, tmp_path)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="delete it to start this training again"):
        _run(20, tmp_path)


def test_full_disk_keeps_the_previous_state(tmp_path, monkeypatch):
    _run(10, tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="no space left"):
        _run(20, tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_slow_prefixes_get_a_lower_rate():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    found = loop._optimizers(model, TrainSettings(1, learning_rate=1.0, slow=("0",)))
    groups = found["adamw"].param_groups
    assert set(found) == {"adamw"}
    assert sorted(g["peak"] for g in groups) == pytest.approx([1 / 30, 1 / 30, 1, 1])
    assert {g["weight_decay"] for g in groups if g["params"][0].ndim < 2} == {0.0}


def test_muon_takes_the_matrices_that_are_not_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    found = loop._optimizers(model, TrainSettings(1, muon=0.1, muon_not=("1.",)))
    (group,) = found["muon"].param_groups
    assert [p is model[0].weight for p in group["params"]] == [True]
    assert sum(len(g["params"]) for g in found["adamw"].param_groups) == 3


def test_muon_resumes_to_the_same_weights(tmp_path):
    whole, _ = _run(30, muon=0.02)
    with pytest.raises(KeyboardInterrupt):
        _run(30, tmp_path / "cut", stop=17, muon=0.02)
    resumed, _ = _run(30, tmp_path / "cut", muon=0.02)
    torch.testing.assert_close(resumed.weight, whole.weight, rtol=0, atol=0)


def test_time_ends_a_run_that_has_steps_left(tmp_path):
    _, result = _run(10**7, tmp_path, seconds=0.3)
    last = result.log[-1]
    assert 10 < last["step"] < 10**7 and 0.3 <= last["seconds"] < 3  # a step takes well under a millisecond
    again, _ = _run(10**7, tmp_path, stop=last["step"], seconds=0.3)  # spent: a further step would raise
    assert torch.isfinite(again.weight).all()


def test_steps_end_a_run_that_has_time_left():
    _, result = _run(20, seconds=1000)
    assert result.log[-1]["step"] == 20 and not result.ended


def test_text_from_on_log_ends_a_run():
    model = _model()
    settings = TrainSettings(100, log_every=10)
    result = train(
        model, _loss(model), settings, progress=False, on_log=lambda row: "enough" if row["step"] > 20 else None
    )
    assert result.ended == "enough" and result.log[-1]["step"] == 21


def test_a_killed_run_loses_at_most_the_steps_since_its_last_save(tmp_path):
    """Killed again and again while it saves after each step, it ends where an uninterrupted run does."""
    command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    killed, whole, last = tmp_path / "killed", tmp_path / "whole", 0
    for more in (3, 1, 2):
        run = subprocess.Popen([*command, str(killed), "30", "--report"], stdout=subprocess.PIPE, text=True)
        reported = [int(run.stdout.readline()) for _ in range(more)]
        run.kill()
        reported += [int(line) for line in run.stdout if line.strip()]
        run.wait()
        run.stdout.close()
        # a step is reported before it is saved: of the last one reported, the save may not have happened
        assert last <= reported[0] <= last + 2
        last = reported[-1] - 1
    for folder in (killed, whole):
        subprocess.run([*command, str(folder), "30"], check=True)
    one, other = (load_file(folder / "state.safetensors") for folder in (killed, whole))
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert sorted(p.name for p in killed.iterdir()) == ["log.csv", "state.safetensors"]


def _contest(steps, folder=None, stop=None):
    """Two numbers: the first runs to the second, which runs away from it; each has its rate."""
    model, rival = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for part, start in ((model, 0.0), (rival, 1.0)):
        nn.init.constant_(part.weight, start)
    seen = []

    def chase(step, generator):
        if step == stop:
            raise KeyboardInterrupt
        seen.append(float(rival.weight.detach()))
        return (model.weight - rival.weight.detach()).square().sum() + 0 * torch.rand(1, generator=generator).sum()

    def flee(step, generator):
        gap = (rival.weight - model.weight.detach()).square().sum()
        return {"loss": -gap, "gap": gap}

    quick = TrainSettings(steps, learning_rate=0.1, warmup=1, final_rate=1.0, weight_decay=0.0, ema=0.0)
    settings = TrainSettings(steps, learning_rate=0.01, warmup=1, weight_decay=0.0, ema=0.0, log_every=1)
    result = train(model, chase, settings, folder, progress=False, opponent=Player(rival, flee, quick))
    return float(model.weight.detach()), float(rival.weight.detach()), result.log, seen


def test_an_opponent_moves_in_the_same_steps_by_its_own_rate():
    model, rival, log, seen = _contest(5)
    assert seen[:2] == pytest.approx([1.0, 1.1]) and rival == pytest.approx(1.5, abs=1e-3)
    assert 0.01 < model < 0.05
    assert list(log[0]) == ["step", "loss", "gap", "seconds"]
    assert log[0]["gap"] == pytest.approx(1) and log[0]["loss"] == pytest.approx(1)


def test_a_contest_resumes_to_the_same_weights(tmp_path):
    whole = _contest(12)
    with pytest.raises(KeyboardInterrupt):
        _contest(12, tmp_path, stop=7)
    assert _contest(12, tmp_path)[:2] == whole[:2]
