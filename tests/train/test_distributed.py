"""Several processes: the same weights as one, replicated or sharded, and states that travel between them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mobivid_core.errors import ParameterError
from mobivid_core.train.distributed import SplitLoss, shard, split
from mobivid_core.train.loop import TrainSettings, train

WORKER = Path(__file__).with_name("worker.py")


def _launch(processes, folder, *arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    start = launch if processes > 1 else [sys.executable]
    done = subprocess.run(
        [*start, str(WORKER), str(folder), *arguments, "--processes", str(processes)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "state.safetensors")


def _close(one, other):
    assert one.keys() == other.keys()
    for key in one:
        # sums run in another order; AdamW divides by the root of tiny second moments, which magnifies that
        torch.testing.assert_close(
            one[key], other[key], atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return _launch(1, tmp_path_factory.mktemp("alone"), "6")


def test_two_processes_equal_one(alone, tmp_path):
    _close(_launch(2, tmp_path, "6"), alone)


def test_sharded_over_two_processes_equals_one_and_its_state_resumes_on_one(alone, tmp_path):
    _launch(2, tmp_path, "6", "--stop", "3", "--sharded")
    assert (tmp_path / "log.csv").read_text().count("\n") == 4  # header and three steps
    _close(_launch(1, tmp_path, "6"), alone)


def test_micro_batches_equal_one_batch(alone, tmp_path):
    _close(_launch(1, tmp_path, "6", "--accumulate", "3"), alone)


def test_parts_cover_the_batch_once_with_shares_that_add_up():
    batch = (torch.arange(7), torch.arange(14).reshape(7, 2))
    parts = [part for rank in range(2) for part in split(batch, rank, 2, 2)]
    assert torch.equal(torch.cat([tensors[0] for tensors, _ in parts]), batch[0])
    assert torch.equal(torch.cat([tensors[1] for tensors, _ in parts]), batch[1])
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert [share for _, share in parts] == pytest.approx([len(tensors[0]) / 7 for tensors, _ in parts])


def test_what_cannot_be_split_is_said():
    with pytest.raises(ParameterError, match="a batch of 3 cannot be split over 2 processes x 2 micro-batches"):
        split((torch.zeros(3),), 0, 2, 2)
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ParameterError, match="draws its own batch.*pass a SplitLoss"):
        train(model, lambda s, g: model.weight.sum(), TrainSettings(1, accumulate=2), progress=False)
    loss = SplitLoss(lambda s, g: (torch.zeros(2, 1),), lambda x: model(x).sum())
    with pytest.raises(ParameterError, match="Muon needs whole matrices"):
        train(model, loss, TrainSettings(1, sharded=True, muon=0.1), progress=False)
    with pytest.raises(ParameterError, match="needs several processes.*accelerate launch"):
        shard(model)
