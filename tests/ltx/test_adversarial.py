"""The adversarial stage on users' weights: it separates, moves the student, resumes, and splits over processes."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mobivid_core.__main__ import main
from mobivid_core.distill.adversarial import Contest
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.discriminator import TeacherDiscriminator
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.ltx.adversarial import compete, stage_settings
from mobivid_core.ltx.alarms import Watch
from mobivid_core.ltx.checkpoint import load_transformer
from mobivid_core.ltx.shards import LatentShards
from mobivid_core.ltx.training import Given, StudentSettings, trajectories
from mobivid_core.prune.plan import PruningPlan

from .conftest import close, launch

STAGE = ("--adversarial", 3, "--warmup", 2)


def words(place, out, *more):
    given = ["--model", place / "ltx", "--student", place / "student", "--data", place / "data", "--out", out]
    few = ["--steps", 3, "--batch", 2, "--captions", 3, "--teacher-steps", 4, "--accumulate", 2]
    return [str(w) for w in ("distill", *given, *few, *more)]


def state(folder):
    (found,) = (folder / "state" / "adversarial").glob("*/state.safetensors")
    return load_file(found)


def without_logit_biases(folder):
    """Real and fake cancel in these gradients inside the hinge's margin; Adam makes whole steps of rounding."""
    found = state(folder)
    biases = [name for name in found if name.endswith("logit.bias")]
    assert len(biases) == 2 * 2  # one a token and one a clip, at two depths
    return {name: value for name, value in found.items() if name not in biases}


@pytest.fixture(scope="module")
def alone(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("adversarial")
    assert main(words(place, out, *STAGE)) == 0
    return out


def test_nought_leaves_the_stage_out_and_the_regression_is_the_same(place, alone, tmp_path):
    assert main(words(place, tmp_path / "without")) == 0
    assert main(words(place, tmp_path / "nought", "--adversarial", 0)) == 0
    assert not (tmp_path / "nought" / "state" / "adversarial").exists()
    plain, nought, mixed = (load_file(f / "state" / "state.safetensors")
                            for f in (tmp_path / "without", tmp_path / "nought", alone))  # fmt: skip
    assert plain.keys() == nought.keys() == mixed.keys()
    assert all(torch.equal(v, nought[k]) and torch.equal(v, mixed[k]) for k, v in plain.items())
    saved = load_transformer(tmp_path / "nought").state_dict()
    assert all(torch.equal(v, plain[f"module/model/{k}"].bfloat16()) for k, v in saved.items())
    other = load_transformer(alone).state_dict()
    assert any(not torch.equal(v, other[k]) for k, v in saved.items())  # the stage moved the student


def test_log_card_and_history_say_what_was_done(alone):
    (log,) = (alone / "state" / "adversarial").glob("*/log.csv")
    columns, *rows = log.read_text().splitlines()
    wanted = {"loss", "regression", "adversarial", "discriminator", "real_logit", "fake_logit", "separation", "r1"}
    assert wanted < set(columns.split(",")) and len(rows) == 3
    (warm,) = (alone / "state" / "adversarial").glob("*/warmup/log.csv")
    assert "separation" in warm.read_text()
    done = json.loads((alone / "history.json").read_text())["steps"][-2:]
    assert done == ["distillation, 3 steps of 2", "adversarial stage, 3 steps of 2 after 2 of the discriminator alone"]
    assert done[-1] in (alone / "README.md").read_text()


@pytest.mark.parametrize("call", [2, 6])
def test_an_interrupted_stage_goes_on_to_the_same_weights(place, alone, tmp_path, monkeypatch, call):
    """In the warm-up, and between the gradients of heads and student."""
    calls, real = [], Contest.draw

    def interrupted(*given):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Contest, "draw", interrupted)
        assert main(words(place, tmp_path, *STAGE)) != 0
    assert main(words(place, tmp_path, *STAGE)) == 0
    expected, found = state(alone), state(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(v, found[k]) for k, v in expected.items())


def test_two_processes_equal_one(place, alone, tmp_path):
    few = words(place, tmp_path, *STAGE)
    few[few.index("--accumulate") + 1] = "1"  # two processes are the two parts
    launch(few, 2)
    close(without_logit_biases(tmp_path), without_logit_biases(alone))


def test_a_streamed_teacher_gives_the_same(place, alone, tmp_path, capsys):
    assert main(words(place, tmp_path, *STAGE, "--stream")) == 0
    close(without_logit_biases(tmp_path), without_logit_biases(alone))
    printed = capsys.readouterr().out
    assert "adversarial stage: 2 updates of the discriminator alone, then 3 steps x 2 clips" in printed
    assert printed.count("GPU at 100 TFLOP/s (derived)") == 2
    assert printed.index("PFLOP: about") < printed.index("trajectories:") < printed.index("separation")


def pieces(place, tmp_path, **other):
    """Models and data, trajectories and settings, without the command."""
    teacher, student = load_transformer(place / "ltx"), load_transformer(place / "student")
    data, how = LatentShards(place / "data"), StudentSettings(2, 6, **other)
    files = trajectories(teacher, data, tmp_path / "trajectories", 6, 4, 3.0, 0)
    plan = PruningPlan.load(place / "student" / "plan.json")
    return Given(teacher, student, plan, data, {}), files, how


def test_heads_tell_the_teacher_s_clips_from_noise_and_say_so(place, tmp_path, capsys):
    given, files, how = pieces(place, tmp_path, watch_every=0)
    torch.nn.init.zeros_(given.student.proj_out.weight)  # a student that stands still: its samples are its noise
    torch.nn.init.zeros_(given.student.proj_out.bias)
    for warmup in (1, 40):
        compete(given, files, how, stage_settings(how, 1, warmup), tmp_path / str(warmup))
    said = [line for line in capsys.readouterr().out.splitlines() if "separation" in line]
    early, late = (float(line.split("separation ")[1].split(";")[0]) for line in said)
    assert abs(early) < 0.2 < 0.5 < late  # untrained heads know nothing
    assert "a longer --warmup" in said[0] and "a longer" not in said[1]


def test_an_alarm_in_the_stage_leaves_the_regressed_student(place, tmp_path, monkeypatch, capsys):
    given, files, how = pieces(place, tmp_path, learning_rate=1e-2)
    student = given.student
    before = {k: v.clone() for k, v in student.state_dict().items()}
    monkeypatch.setattr(Watch, "judge", lambda self, measures: "the samples saturate")
    result = compete(given, files, how, stage_settings(how, 5, 1), tmp_path)
    assert "saturate" in result.ended and "last good weights" in capsys.readouterr().out
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_what_cannot_be_had_is_said_in_one_line(place, tmp_path, capsys):
    for given, said in (
        (("--adversarial", 3, "--shard"), "--adversarial does not work with --shard"),
        (("--warmup", 3), "ask for that with --adversarial STEPS"),
        (("--adversarial", -1), "--adversarial: expected a whole number"),
    ):
        try:
            status = main(words(place, tmp_path, *given))
        except SystemExit as end:
            status = end.code
        error = capsys.readouterr().err
        assert status == 2 and said in error and error.count("\n") == 1 and error.startswith("error: ")


def test_checkpointed_backward_passes_cost_one_forward_pass_more():
    stage = DistillSettings(1, batch=2, adversarial_weight=0.1, discriminator_warmup=0, gradient_steps=2)
    plain, again = DistillCosts(1.0, 10.0), DistillCosts(1.0, 10.0, checkpointed=True)
    assert again.training(stage) - plain.training(stage) == 2 * (1 + 2 * 1 + 10)


def test_heads_compute_in_float32_under_autocast(place):
    teacher = load_transformer(place / "ltx", torch.bfloat16)
    heads = TeacherDiscriminator.seeded(teacher, 0)
    clips, text = torch.randn(2, 6, 2, 2, 2), torch.randn(2, 5, 12)
    given = clips, torch.tensor([0.1, 0.9]), text, torch.ones(2, 5).bool()
    seen = []
    heads.heads[0].project.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        logits = heads(*given)
    assert logits.dtype == torch.float32 and seen == [(torch.float32, torch.float32)]
    torch.testing.assert_close(logits, heads(*given), rtol=0.05, atol=0.05)
