import copy

import pytest
import torch

from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.recipe import Recipe, distill, run_stages
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.student import load_student, save_student
from mobivid_core.distill.trainer import Distiller
from mobivid_core.errors import CheckpointError, ParameterError, TrainingError
from mobivid_core.flow.sampling import sample_latents
from mobivid_core.train.precision import whole_training

REGRESS = DistillSettings(40, batch=8, rate=3e-3, rate_warmup=1, snapshot_every=2)
BOTH = DistillSettings(4, batch=4, adversarial_weight=0.1, discriminator_warmup=2, snapshot_every=2)


def make_contest(teacher, dataset, trajectories, settings=BOTH):
    torch.manual_seed(0)
    return Contest(TeacherDiscriminator(teacher, (0, 2), width=8), RealPool(dataset, trajectories), settings)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_regression_learns(student, trajectories):
    distiller = Distiller(student, trajectories, REGRESS)
    distiller.run()
    losses = [row["regression"] for row in distiller.log]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert torch.isnan(torch.tensor(distiller.log[0]["adversarial"]))  # no discriminator was asked for


def test_the_averaged_student_trails_the_trained_one(student, trajectories):
    """By hand: an exponential average whose decay rises from (1 + step) / (10 + step) to its setting."""
    distiller, average = Distiller(student, trajectories, REGRESS), weights(student)
    for step in range(1, 6):
        distiller.run(until=step)
        average = average + (1 - min(REGRESS.ema, step / (9 + step))) * (weights(distiller.student) - average)
    torch.testing.assert_close(weights(distiller.averaged), average)
    assert not torch.equal(weights(distiller.averaged), weights(distiller.student))


def test_resumed_run_equals_an_uninterrupted_one(teacher, student, dataset, trajectories, tmp_path):
    """Bit-identical: every draw depends on (seed, step) alone, and all optimiser state is stored."""
    whole = Distiller(copy.deepcopy(student), trajectories, BOTH, contest=make_contest(teacher, dataset, trajectories))
    expected = whole.run()
    first = Distiller(
        copy.deepcopy(student),
        trajectories,
        BOTH,
        contest=make_contest(teacher, dataset, trajectories),
        folder=tmp_path,
    )
    first.run(until=2)
    second = Distiller(
        copy.deepcopy(student),
        trajectories,
        BOTH,
        contest=make_contest(teacher, dataset, trajectories),
        folder=tmp_path,
    )
    assert second.step == 2
    found = second.run()
    assert torch.equal(weights(expected), weights(found))
    assert torch.equal(weights(whole.contest.heads), weights(second.contest.heads))
    assert [r["step"] for r in second.log] == [1, 2, 3, 4]
    assert [r["regression"] for r in second.log] == [r["regression"] for r in whole.log]


def test_one_bad_batch_is_survived(student, trajectories, monkeypatch):
    """A NaN at step 3 alone: back to the last good state, half the rate, and on to the end."""
    from mobivid_core.distill import trainer

    calls, real = [], trainer.regression_loss

    def once_bad(*args):
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(trainer, "regression_loss", once_bad)
    settings = DistillSettings(6, batch=4, snapshot_every=2)
    distiller = Distiller(student, trajectories, settings)
    distiller.run()
    assert distiller.recoveries == 1 and distiller.step == 6
    assert [row["step"] for row in distiller.log] == [1, 2, 3, 4, 5, 6]
    assert torch.isfinite(weights(distiller.averaged)).all()


def test_lasting_nan_stops_with_the_last_good_weights(student, trajectories, tmp_path):
    settings = DistillSettings(10, batch=4, snapshot_every=2, most_recoveries=2)
    distiller = Distiller(student, trajectories, settings, folder=tmp_path)
    distiller.run(until=4)
    good = weights(student).clone()
    distiller.trajectories.states.fill_(float("nan"))
    with pytest.raises(TrainingError, match="step 4 after 2 recoveries.*last good weights, of step 4"):
        distiller.run()
    assert torch.equal(weights(student), good)
    again = Distiller(copy.deepcopy(student), trajectories, settings, folder=tmp_path)
    assert again.step == 4  # what was saved is the good state too


def test_exploding_weights_are_never_kept(student, trajectories):
    """An update that itself destroys the weights is found before the snapshot."""
    distiller = Distiller(
        student, trajectories, DistillSettings(2, batch=4, snapshot_every=1, rate=1e38, clip_norm=1e30)
    )
    with pytest.raises(TrainingError):
        distiller.run()
    assert torch.isfinite(weights(student)).all()


def test_settings_that_train_nothing_are_refused(student, trajectories):
    with pytest.raises(ParameterError, match="nothing to train on"):
        DistillSettings(1, anchor_weight=0.0)
    with pytest.raises(ParameterError, match="pass `contest`"):
        Distiller(student, trajectories, BOTH)


def test_distill_end_to_end_and_back_from_disk(teacher, student, dataset, tmp_path):
    recipe = Recipe(12, 4, "euler", 2.0, DistillSettings(3, batch=4), BOTH, synthetic_share=0.25)
    before = weights(student).clone()
    result = distill(student, teacher, dataset, recipe, folder=tmp_path / "work")
    assert torch.equal(before, weights(student))  # the start is copied
    assert list(result.costs["stage"]) == ["teacher trajectories", "regression", "adversarial"]
    assert (result.costs["TFLOP (counted)"] > 0).all() and len(result.log) == 3 + 4
    again = distill(student, teacher, dataset, recipe, folder=tmp_path / "work")
    assert torch.equal(weights(result.student), weights(again.student))

    save_student(result.student, tmp_path / "student", {"steps": 7})
    loaded, card = load_student(tmp_path / "student")
    assert (card["steps"], card["guidance"], card["sigmas"]) == (4, 1.0, [1.0, 0.75, 0.5, 0.25, 0.0])
    assert torch.equal(weights(loaded), weights(result.student))
    with pytest.raises(CheckpointError, match="not a distilled student"):
        load_student(tmp_path)


def test_batched_sampling_is_the_whole_batch(student, condition):
    noise = torch.randn(12, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        sample_latents(student, condition, noise, 4, batch=5),
        sample_latents(student, condition, noise, 4),
        atol=1e-5,
        rtol=1e-5,
    )


def test_costs_follow_from_the_settings():
    """Regression: three forwards. Adversarial on top: the heads read three batches, the student runs its four steps."""
    costs = DistillCosts(student=1.0, teacher=2.0)
    regression, both = (
        DistillSettings(10, batch=4),
        DistillSettings(10, batch=4, adversarial_weight=1.0, discriminator_warmup=5),
    )
    assert costs.training(regression) == 10 * 4 * 3
    heads = 4 * (4 * 1 + 3 * 2)
    assert costs.training(both) == 10 * (4 * (3 + (4 + 8) * 1 + 2 * 2) + heads) + 5 * heads
    assert costs.trajectories(3, 40, 3.0) == 3 * 80 * 2


def test_saved_stage_is_not_taken_up_by_another_training(teacher, student, dataset, trajectories, tmp_path):
    """Another start in the same folder must train, not resume somebody else's finished run."""
    settings = (DistillSettings(2, batch=4),)
    first = run_stages(student, teacher, dataset, trajectories, settings, folder=tmp_path)[0]
    same = run_stages(student, teacher, dataset, trajectories, settings, folder=tmp_path)[0]
    other = run_stages(teacher, teacher, dataset, trajectories, settings, folder=tmp_path)[0]
    assert torch.equal(weights(first.averaged), weights(same.averaged))
    assert len(list(tmp_path.iterdir())) == 2 and not torch.equal(weights(other.averaged), weights(teacher))


def test_muon_trains_the_blocks_matrices_and_resumes(student, trajectories, tmp_path):
    settings = DistillSettings(30, batch=8, rate=3e-3, muon=1e-2, rate_warmup=1, snapshot_every=5)
    whole = Distiller(copy.deepcopy(student), trajectories, settings)
    expected = whole.run()
    losses = [row["regression"] for row in whole.log]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    Distiller(copy.deepcopy(student), trajectories, settings, folder=tmp_path).run(until=10)
    again = Distiller(copy.deepcopy(student), trajectories, settings, folder=tmp_path)
    assert again.step == 10
    torch.testing.assert_close(weights(again.run()), weights(expected))


def test_command_line_says_what_the_recipe_is():
    from mobivid_core.distill.command import make_parser, recipe_of
    from mobivid_core.profiles import get_profile

    asked = ["--regression-steps", "2000", "--muon", "5e-3", "--batch", "64", "--adversarial-steps", "40"]
    recipe = recipe_of(make_parser().parse_args(asked), get_profile("laptop"))
    assert (recipe.regression.steps, recipe.regression.muon, recipe.regression.batch) == (2000, 5e-3, 64)
    assert (recipe.adversarial.steps, recipe.adversarial.batch, recipe.adversarial.discriminator_warmup) == (40, 16, 10)
    assert recipe.teacher_steps == 8 and recipe.adversarial.muon == 0 and recipe.own is None
    none = ["--regression-steps", "0", "--adversarial-steps", "0"]
    own = recipe_of(make_parser().parse_args([*none, "--own-rounds", "2", "--own-clips", "512"]), get_profile("laptop"))
    assert own.adversarial is own.regression is None
    assert (own.own.rounds, own.own.clips, own.own.settings.steps) == (2, 512, 400)
    assert own.own.settings_of(1).seed == own.own.settings.seed + 1 and own.own.settings.rate < recipe.regression.rate
    with pytest.raises(ParameterError, match="nothing to train"):
        recipe_of(make_parser().parse_args(none), get_profile("laptop"))


def test_command_line_says_in_one_line_what_cannot_be_had(capsys):
    from mobivid_core.distill.command import main

    for asked, said in (
        (["--regression-steps", "0", "--adversarial-steps", "0"], "nothing to train"),
        (["--start", "nowhere"], "no config.json in nowhere"),
    ):
        assert main(asked) == 2
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["--own-rounds", "1", "--own-steps", "0"])
    error = capsys.readouterr().err
    assert "--own-steps: expected a whole number above zero" in error and error.count("\n") == 1


def test_a_whole_training_in_bfloat16_sees_its_own_updates(student, trajectories):
    """As in float32, within rounding; a context that kept the first step's bfloat16 weights would not learn so."""
    settings = DistillSettings(40, batch=8, rate=3e-3, rate_warmup=1, snapshot_every=40)
    plain = Distiller(copy.deepcopy(student), trajectories, settings)
    plain.run()
    half = Distiller(copy.deepcopy(student), trajectories, settings)
    with whole_training("cpu", bf16=True):
        half.run()
    losses, expected = ([row["regression"] for row in d.log] for d in (half, plain))
    assert losses != expected and sum(expected[-5:]) < 0.8 * sum(expected[:5])
    assert sum(losses[-5:]) == pytest.approx(sum(expected[-5:]), rel=0.02)


def test_seconds_end_a_training_and_the_rates_follow_the_time():
    timed = DistillSettings(1000, seconds=10.0, rate_warmup=1)
    assert timed.done_at(0, 0.0) == 0.0 and timed.done_at(10, 5.0) == 0.5 and timed.done_at(600, 5.0) == 0.6
    assert timed.done_at(1, 99.0) == 1.0
    assert timed.share_at(10, 5.0) == pytest.approx(DistillSettings(1000, rate_warmup=1).share_at(500))


def test_a_timed_training_stops_and_keeps_its_state(student, trajectories, tmp_path):
    settings = DistillSettings(100_000, batch=4, rate_warmup=1, snapshot_every=1000, seconds=0.3)
    first = Distiller(copy.deepcopy(student), trajectories, settings, folder=tmp_path)
    first.run()
    assert 0 < first.step < 100_000
    again = Distiller(copy.deepcopy(student), trajectories, settings, folder=tmp_path)
    assert again.step == first.step
    again.run()
    assert again.step == first.step, "its time is spent"
