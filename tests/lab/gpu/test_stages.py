"""The whole GPU run on the processor at smoke sizes: every stage, each reading what the ones before it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from mobivid_core.artifacts import load_model, save_model
from mobivid_core.distill.student import load_student
from mobivid_core.distill.trajectory import teacher_states
from mobivid_core.lab.gpu import command
from mobivid_core.lab.gpu.stages import Place
from mobivid_core.lab.gpu.students import STAGES, walked
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("gpu")
    small = {"clips": 24, "trajectories": 8, "batch": 4}
    return Place(root, get_profile("smoke"), torch.device("cpu"), **small)


def test_every_stage_runs_on_what_the_ones_before_it_left(place: Place) -> None:
    for name in ("judge", "codec", "latents", "sharpen", "teacher", "guidance", "prune", "trajectories"):
        STAGES[name](place, 1.0)
    STAGES["regress"](place, 2.0)
    STAGES["regress"](place, 2.0, start="pruned", to="student-regression")
    STAGES["contest"](place, 1.0)
    STAGES["compare"](place, 1.0)

    plain, sharp = (load_model(MobiVidVAE, place.root / name) for name in ("vae", "vae-sharp"))
    encoders = [{k: v for k, v in m.state_dict().items() if k.startswith("linear_encoder")} for m in (plain, sharp)]
    assert all(torch.equal(encoders[0][k], encoders[1][k]) for k in encoders[0]), "latents made before stay valid"
    for name in ("distilled-regression", "student-regression", "distilled-adversarial"):
        student, card = load_student(place.root / name)
        assert card["guidance"] == 1.0 and student.sizes.in_channels == place.profile.vae_channels
        assert len(pd.read_csv(place.root / name / "log.csv")) >= 1
    rows = {row["name"] for row in json.loads((place.root / "compared.rows.json").read_text())}
    assert {"teacher, Euler-40, guided", "distilled-adversarial", "student-regression", "reconstructions"} <= rows


def test_trajectories_are_kept_with_the_captions_that_made_them(place: Place) -> None:
    """Walked again from the kept noise under the kept captions, the teacher reaches the kept states."""
    teacher = place.model("teacher").eval()
    for block in teacher.blocks:  # a few steps of training leave cross-attention at zero: captions would not matter
        torch.nn.init.normal_(block.attn2.to_out.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(teacher.proj_out.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    save_model(teacher, place.root / "teacher")
    STAGES["trajectories"](place, 1.0)

    paths = walked(place, place.dataset())
    settings = {"steps": place.teacher_steps, "guidance": paths.guidance, "solver": "euler"}
    again = teacher_states(teacher, paths.condition, paths.states[:, 0], **settings)
    torch.testing.assert_close(again, paths.states, rtol=1e-3, atol=1e-3)  # batches of another size round otherwise
    swapped = paths.condition.take(torch.arange(len(paths)).flip(0))
    others = teacher_states(teacher, swapped, paths.states[:, 0], **settings)
    assert (others - paths.states).abs().max() > 0.05, "captions matter here, so that wrong ones would be seen"


def test_weights_brought_back_fit_the_limits_of_a_transfer(place: Place) -> None:
    for weights in place.root.glob("*/diffusion_pytorch_model.safetensors"):
        assert weights.stat().st_size < 16 * 2**20, weights


def _schedule(monkeypatch: pytest.MonkeyPatch, stages: dict) -> None:
    monkeypatch.setattr(command, "SCHEDULE", stages)


def test_stages_wait_for_what_they_need_and_are_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    order: list[str] = []

    class Done:
        returncode = 0

        def __init__(self, arguments: list[str], **_: object) -> None:
            order.append(arguments[5])

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(command.subprocess, "Popen", Done)
    _schedule(monkeypatch, {"b": (0.5, "a", "b"), "a": (0.5, "", "a"), "c": (0.0, "a b", "c")})
    assert command.main(["run", "--minutes", "1", "--out", str(tmp_path)]) == 0
    assert order == ["a", "b", "c"]
    assert command.main(["run", "--minutes", "1", "--out", str(tmp_path)]) == 0
    assert order == ["a", "b", "c"], "finished stages of an earlier call count"


def test_a_failed_stage_is_shown_and_what_needs_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Broken:
        returncode = 1

        def __init__(self, arguments: list[str], stdout: object, **_: object) -> None:
            stdout.write("the reason\n")
            stdout.flush()

        def poll(self) -> int:
            return 1

    monkeypatch.setattr(command.subprocess, "Popen", Broken)
    _schedule(monkeypatch, {"a": (0.5, "", "a"), "b": (0.5, "a", "b")})
    assert command.main(["run", "--minutes", "1", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "a FAILED" in shown and "the reason" in shown and "b " not in shown.replace("b done", "")
