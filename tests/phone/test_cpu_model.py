"""The processor model: recorded work equals the closed form, and time follows from it. No clock is read here."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from mobivid_core.phone import cpu_model
from mobivid_core.phone.cpu_model import Processor, Recorded

GRID, HIDDEN, HEADS, FFN = (2, 3, 4), 64, 1, 96
FLAT = {2**n: 1e9 for n in range(10, 20)}


def test_recorded_flops_equal_the_closed_form() -> None:
    tokens, width, text = 24, HEADS * 64, 77
    projections, scores = 8 * tokens * HIDDEN * width, 4 * tokens * tokens * width
    cross = 4 * tokens * HIDDEN * width + 4 * text * HIDDEN * width + 4 * tokens * text * width
    ffn = 4 * tokens * HIDDEN * FFN
    expected = {"FFN": ffn, "attention": projections + scores, "block": ffn + projections + scores + cross}
    for name, run in cpu_model.parts(GRID, HIDDEN, HEADS, FFN).items():
        assert sum(o.flops for o in cpu_model.record(run)) == expected[name]


def test_views_are_free_and_copies_are_not() -> None:
    x = torch.zeros(8, 16)
    recorded = cpu_model.record(lambda: F.gelu(x.t().reshape(4, 32)))
    # The transposed tensor is copied to be reshaped (512 bytes in and out), then GELU reads and writes as much.
    assert [o.bytes for o in recorded] == [1024, 1024]
    assert recorded[-1].gelu == 128 and recorded[-1].flops == 0


def test_an_operation_takes_the_slowest_of_its_sides() -> None:
    processor = Processor(flops_per_s=1e9, bandwidth=FLAT, gelu_per_s=1e6, exp_per_s=1e6)
    assert processor.seconds([Recorded(flops=2 * 10**9, bytes=100)]) == pytest.approx(2.0)
    assert processor.seconds([Recorded(bytes=3 * 10**9)]) == pytest.approx(3.0)
    assert processor.seconds([Recorded(bytes=100, gelu=5 * 10**6)]) == pytest.approx(5.0)
    assert processor.seconds([Recorded(flops=10**9, exp=10**6)]) == pytest.approx(2.0)
    assert processor.seconds([Recorded(flops=10**9)] * 3) == pytest.approx(3.0)


def test_bandwidth_is_read_at_the_working_set() -> None:
    processor = Processor(1e9, {2**10: 4e9, 2**20: 1e9}, 1e6, 1e6)
    assert processor.seconds([Recorded(bytes=2**10)]) == pytest.approx(2**10 / 4e9)
    assert processor.seconds([Recorded(bytes=2**30)]) == pytest.approx(2**30 / 1e9)


def test_worst_ratio_counts_both_directions() -> None:
    assert cpu_model.worst_ratio(pd.DataFrame({"predicted / measured": [1.1, 0.8, 1.0]})) == pytest.approx(1.25)


def test_compare_names_every_part_of_every_size() -> None:
    table, processor = cpu_model.compare([(GRID, HIDDEN, HEADS, FFN)], repeats=1)
    assert list(table["part"]) == ["FFN", "attention", "block"] and (table["tokens"] == 24).all()
    assert (table["measured ms"] > 0).all() and processor.flops_per_s > 0
