"""Recovery on several processes, and through FSDP2, equals recovery on one; it learns, resumes and is exported."""

import pytest
import torch
from safetensors.torch import load_file

from mobivid_core.__main__ import main
from mobivid_core.ltx.checkpoint import load_transformer

from .conftest import close, launch


def words(place, out, *more, steps=4):
    given = ["--model", place / "ltx", "--student", place / "student", "--data", place / "data", "--out", out]
    return [str(w) for w in ("recover", *given, "--steps", steps, "--batch", 2, *more)]


def state(folder):
    return load_file(folder / "state" / "state.safetensors")


@pytest.fixture(scope="module")
def alone(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    assert main(words(place, out, "--accumulate", 2)) == 0  # the same parts as two processes
    return state(out)


def test_two_processes_equal_one(place, alone, tmp_path):
    launch(words(place, tmp_path), 2)
    close(state(tmp_path), alone)
    assert load_transformer(tmp_path).sizes.blocks == 2


def test_sharded_over_two_processes_equals_one(place, alone, tmp_path):
    launch(words(place, tmp_path, "--shard"), 2)
    close(state(tmp_path), alone)
    whole = load_transformer(tmp_path, torch.float32).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(value, alone[f"module/model/{name}"], atol=1e-3, rtol=1e-2)  # saved in bfloat16


def test_recovery_learns_and_resumes(place, tmp_path):
    assert main(words(place, tmp_path, "--rate", 3e-3, steps=60)) == 0
    log = (tmp_path / "state" / "log.csv").read_text().splitlines()
    losses = [float(line.split(",")[1]) for line in log[1:]]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    began = (tmp_path / "state" / "log.csv").read_text()
    assert main(words(place, tmp_path, "--rate", 3e-3, steps=60)) == 0  # nothing is left to do
    assert (tmp_path / "state" / "log.csv").read_text() == began


def test_a_block_is_exported_exactly_tanh_gelu_and_slices_included(place, tmp_path, capsys):
    pytest.importorskip("coremltools")
    model = load_transformer(place / "student")
    assert model.config.gelu == "tanh" and model.sizes.rope_heads[0] == (0, 2, 3)
    clip = ["--frames", "9", "--height", "64", "--width", "64", "--text-tokens", "5"]
    given = ["export", "--model", str(place / "student"), "--out", str(tmp_path)]
    assert main([*given, "--block", "0", *clip]) == 0  # within the gates: 2e-6 in float32, 2e-3 in float16
    assert "block0" in capsys.readouterr().out
    assert main([*given, *clip]) == 0
    assert len(list(tmp_path.glob("*.mlpackage"))) == 2
