"""bfloat16 is taken where it was timed to be clearly faster, once a machine; no test here depends on a real clock."""

import argparse
import json
import re
import time
from itertools import count

import pytest
import torch

from mobivid_core.train import precision
from mobivid_core.train.muon import orthogonalise
from mobivid_core.train.precision import CONVOLUTIONAL, DIT, FILE, MUON, WORKLOADS, Precision, choose, decide, timed


@pytest.fixture
def clocked(runs, monkeypatch):
    """Every kind takes 2 ms in float32 and 1 ms in bfloat16; what was timed is listed."""
    calls = []

    def fake(work, clock=None):
        calls.append(work)
        return 2e-3, 1e-3

    monkeypatch.setattr(precision, "timed", fake)
    precision._kept.cache_clear()
    yield calls
    precision._kept.cache_clear()  # other tests must not see these times


@pytest.mark.parametrize(
    "half, bf16, reason",
    [
        (0.25, True, "4.0 times as fast as"),
        (0.86, True, "1.2 times as fast as"),
        (0.9, False, r"hardly faster \(1.11 times\) than"),
        (1.0, False, "no faster than"),
        (1.1, False, "no faster than"),
        (2.0, False, "2.0 times slower than"),
    ],
)
def test_a_clear_margin_is_needed(half, bf16, reason):
    chosen = decide({"linear": (1.0, half)})
    assert chosen.bf16 is bf16
    assert re.search(f"bfloat16 {reason} float32, timed on linear", chosen.reason)
    assert str(chosen).startswith("bfloat16: " if bf16 else "float32: ")


def test_kinds_count_by_their_seconds():
    # attention loses by half, and the linear layers' gain outweighs it
    assert decide({"linear": (4.0, 1.0), "attention": (0.5, 1.0)}).bf16
    assert not decide({"linear": (4.0, 3.9), "attention": (0.5, 1.0)}).bf16


def test_the_least_of_the_times_counts_and_both_are_taken_in_turn():
    ticks, order = iter([0, 5, 5, 9, 9, 12, 12, 14, *range(100, 200)]), []
    single, half = timed(order.append, clock=lambda: next(ticks) / 1000)
    assert (single, half) == pytest.approx((1e-3, 1e-3))
    assert order[:4] == [False, True, False, True] and order.count(True) == order.count(False)


def test_what_is_very_slow_is_not_repeated():
    """Emulated bfloat16 takes seconds: two calls are enough."""
    now, order = [0.0], []

    def work(half):
        order.append(half)
        now[0] += 3.0 if half else 0.001

    single, half = timed(work, clock=lambda: now[0])
    assert (single, half) == pytest.approx((0.001, 3.0))
    assert order.count(True) == 2 < order.count(False)


def test_each_kind_is_timed_once_a_machine(clocked, runs):
    assert choose(DIT).bf16 and len(clocked) == len(DIT)
    precision._kept.cache_clear()  # as in another process
    assert choose(DIT).reason == "bfloat16 2.0 times as fast as float32, timed on linear and attention"
    assert len(clocked) == len(DIT)
    choose(MUON)
    assert len(clocked) == len(DIT) + 1
    records = json.loads((runs / FILE).read_text())
    assert [len(record) for record in records.values()] == [3]


def test_waiting_does_not_count():
    """On a busy machine a call may wait for seconds; its processor time stays what it is."""
    single, half = timed(lambda half: time.sleep(0.02 if half else 0))
    assert half < 0.01


@pytest.mark.parametrize(
    "text",
    ["{torn", "[]", "null", '{"MACHINE": 3}', '{"MACHINE": {"linear": [1.0]}}', '{"MACHINE": {"linear": [0, "a"]}}'],
)
def test_a_torn_or_strange_file_is_timed_anew(clocked, runs, text):
    runs.mkdir()
    machine = precision._machine()
    (runs / FILE).write_text(text.replace("MACHINE", machine))
    assert choose(("linear",)).bf16 and len(clocked) == 1
    assert json.loads((runs / FILE).read_text())[machine]["linear"] == [2e-3, 1e-3]


def test_a_folder_that_cannot_be_written_only_costs_time(clocked, runs):
    runs.write_text("a file where the folder should be")
    assert choose(CONVOLUTIONAL).bf16 and len(clocked) == 1


def test_another_instruction_set_is_another_machine(monkeypatch):
    before = precision._machine()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert precision._machine() != before


@pytest.mark.parametrize("kind", WORKLOADS)
def test_workloads_run_in_both_types_and_leave_the_random_state_alone(kind):
    state = torch.get_rng_state()
    clock = count()
    assert timed(WORKLOADS[kind](), clock=lambda: next(clock)) == (1, 1)
    assert torch.equal(state, torch.get_rng_state())


def test_timing_works_inside_no_grad_and_keeps_the_threads(runs):
    precision._kept.cache_clear()
    threads = torch.get_num_threads()
    with torch.inference_mode():
        assert isinstance(choose(("linear",)), Precision)
    assert torch.get_num_threads() == threads
    precision._kept.cache_clear()


def test_a_command_line_decides_else_the_clock(clocked, capsys):
    parser = argparse.ArgumentParser()
    precision.add_argument(parser)
    for words, expected in (["--bf16"], True), (["--no-bf16"], False):
        assert precision.asked(parser.parse_args(words).bf16, DIT) is expected
    assert capsys.readouterr().out == "" and not clocked
    assert precision.asked(parser.parse_args([]).bf16, DIT)
    assert "precision: bfloat16: bfloat16 2.0 times as fast" in capsys.readouterr().out


def test_muon_follows_the_clock_unless_told(clocked, monkeypatch):
    matrices = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(0))
    single, half = orthogonalise(matrices, bf16=False), orthogonalise(matrices, bf16=True)
    assert not torch.equal(single, half)
    assert torch.equal(orthogonalise(matrices), half)
    monkeypatch.setattr(precision, "timed", lambda work: (1e-3, 2e-3))
    precision._kept.cache_clear()
    (precision.runs_dir("any").parent / FILE).unlink()
    assert torch.equal(orthogonalise(matrices), single)
