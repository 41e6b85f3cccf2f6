"""Recovery on several processes, and through FSDP2, equals recovery on one; it learns, resumes and is exported."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from mobivid_core.__main__ import main
from mobivid_core.ltx.checkpoint import load_transformer
from mobivid_core.ltx.layout import ltx_sizes
from mobivid_core.ltx.plans import cut
from mobivid_core.ltx.random_weights import write_random_data, write_random_ltx
from mobivid_core.prune.plan import PruningPlan


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A random teacher, a student cut from it, and data."""
    folder = tmp_path_factory.mktemp("training")
    sizes = ltx_sizes(3, 4, 8, in_channels=6, text_dim=12)
    write_random_ltx(folder / "ltx", sizes, torch.float32)
    write_random_data(folder / "data", sizes, (2, 2, 2), samples=6, text_tokens=5)
    plan = PruningPlan(sizes, (0, 2), ((0, 2, 3),) * 2, ((1, 2, 3),) * 2, (tuple(range(96)),) * 2)
    cut(load_transformer(folder / "ltx"), plan, folder / "student", "random weights", (2, 2, 2), 5)
    return folder


def words(place, out, *more, steps=4):
    given = ["--model", place / "ltx", "--student", place / "student", "--data", place / "data", "--out", out]
    return [str(w) for w in ("recover", *given, "--steps", steps, "--batch", 2, *more)]


def launch(arguments, processes):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*start, "-m", "mobivid_core", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def state(folder):
    return load_file(folder / "state" / "state.safetensors")


def close(one, other):
    assert one.keys() == other.keys()
    for name in one:  # AdamW divides by the root of tiny second moments, which magnifies another order of sums
        torch.testing.assert_close(one[name], other[name], atol=2e-5, rtol=1e-3)


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
