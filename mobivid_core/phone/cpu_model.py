"""The device model validated on this machine's processor: a roofline for each operation.

Paper: none. On this machine the error of the model that predicts phones can be measured. A few probes describe the
machine (the speed of one large matrix product, of copying by working set, of GELU and of exp), the block's operations
are recorded from one run, and each takes

    t = max(FLOPs / peak, bytes / bandwidth(bytes), values / vector rate).

Nothing is fitted to the blocks. Probes and blocks take turns, and the fastest of each is kept, so that other programs
disturb both alike.

Simplified: one operation after the other; attention's inner products run at the peak of large ones; no call overhead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mobivid_core.models.attention import Attention, FeedForward
from mobivid_core.models.dit import TransformerBlock
from mobivid_core.models.rope import rotary_table
from mobivid_core.phone.turns import alternating_seconds

#: (grid, hidden width, heads of 64, FFN width): from a fifth of the mobile block's tokens and half its width to all.
SIZES = (((3, 8, 12), 1024, 10, 3072), ((5, 10, 14), 1536, 15, 4608), ((7, 12, 16), 2048, 20, 6144))
_HEAD_DIM, _TEXT_TOKENS = 64, 77
#: Bytes read and written by one copying operation, at which the bandwidth is measured.
_WORKING_SETS = tuple(2**n for n in range(19, 28))
_PRODUCT = 1536
_VECTOR = 2**16


@dataclass(frozen=True)
class Recorded:
    """One operation of a run."""

    flops: int = 0  # multiply-add = 2
    bytes: int = 0  # of the tensors read and written
    gelu: int = 0  # values that go through GELU
    exp: int = 0  # values that go through a softmax's exp


@dataclass(frozen=True)
class Processor:
    """What the probes found."""

    flops_per_s: float  # of one large float32 matrix product
    bandwidth: dict[int, float]  # working set in bytes -> bytes read and written per second, by rising sizes
    gelu_per_s: float  # on values in cache, as the next
    exp_per_s: float

    def seconds(self, operations: Sequence[Recorded]) -> float:
        """Time of recorded operations, one after the other."""
        return sum(self._seconds(operation) for operation in operations)

    def _seconds(self, one: Recorded) -> float:
        rate = np.interp(np.log2(max(one.bytes, 1)), np.log2(list(self.bandwidth)), list(self.bandwidth.values()))
        # Attention's exp happens between its products, on the same core: the two add up. GELU stands alone.
        compute = one.flops / self.flops_per_s + one.gelu / self.gelu_per_s + one.exp / self.exp_per_s
        return max(compute, one.bytes / float(rate))


class Recorder(TorchDispatchMode):
    """Notes FLOPs and bytes of each operation that makes or changes values; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Recorded] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 (torch's signature)
        """Run the operation and note what it cost."""
        out = func(*args, **(kwargs or {}))
        made = out[0] if isinstance(out, (tuple, list)) else out
        inputs = [a for a in tree_leaves(args) if isinstance(a, Tensor)]
        if not isinstance(made, Tensor):
            return out
        view = any(made.untyped_storage()._cdata == t.untyped_storage()._cdata for t in inputs)  # some are undeclared
        if view and not func._schema.is_mutable:
            return out
        moved = sum(t.numel() * t.element_size() for t in {id(t): t for t in (*inputs, made)}.values())
        if "scaled_dot_product" in func._schema.name:
            query, key = inputs[:2]
            scores = query.numel() // query.shape[-1] * key.shape[-2]
            self.operations.append(Recorded(4 * scores * query.shape[-1], moved, exp=scores))
        else:
            counter = flop_registry.get(func._overloadpacket)
            flops = counter(*args, out_val=out) if counter else 0
            self.operations.append(Recorded(flops, moved, made.numel() if func._schema.name == "aten::gelu" else 0))
        return out


def record(function: Callable[[], object]) -> list[Recorded]:
    """The operations of one call."""
    with torch.no_grad(), Recorder() as recorder:
        function()
    return recorder.operations


def parts(grid: tuple[int, int, int], hidden: int, heads: int, ffn: int, seed: int = 0) -> dict[str, Callable]:
    """FFN, self-attention and whole block of one size with random weights, as functions to run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokens = torch.randn(1, grid[0] * grid[1] * grid[2], hidden)
        text, modulation = torch.randn(1, _TEXT_TOKENS, hidden), torch.randn(1, 6, hidden)
        feed_forward, attention = FeedForward(hidden, ffn), Attention(hidden, heads, _HEAD_DIM)
        block = TransformerBlock(hidden, _HEAD_DIM, heads, heads, ffn)
    table = rotary_table(grid, _HEAD_DIM)
    return {
        "FFN": lambda: feed_forward(tokens),
        "attention": lambda: attention(tokens, table=table),
        "block": lambda: block(tokens, text, modulation, table),
    }


def compare(sizes: Sequence[tuple] = SIZES, *, repeats: int = 5, seed: int = 0) -> tuple[pd.DataFrame, Processor]:
    """Predict and measure FFN, attention and block at each size, as `parts` takes it, on this processor.

    In each of `repeats` rounds every probe and every part is timed once, and the fastest counts.
    """
    work = {(size, name): run for size in sizes for name, run in parts(*size, seed=seed).items()}
    recorded = {key: record(run) for key, run in work.items()}
    with torch.no_grad():
        fastest = {key: min(own) for key, own in alternating_seconds(_probes() | work, repeats).items()}
    processor = Processor(
        2 * _PRODUCT**3 / fastest["product"],
        {size: size / fastest["copy", size] for size in _WORKING_SETS},
        _VECTOR / fastest["gelu"],
        _VECTOR / fastest["exp"],
    )
    rows = []
    for key in work:
        (grid, hidden, *_), name = key
        predicted, measured = 1e3 * processor.seconds(recorded[key]), 1e3 * fastest[key]
        rows.append((name, grid[0] * grid[1] * grid[2], hidden, predicted, measured, predicted / measured))
    columns = ["part", "tokens", "hidden", "predicted ms", "measured ms", "predicted / measured"]
    return pd.DataFrame(rows, columns=columns), processor


def worst_ratio(table: pd.DataFrame) -> float:
    """How far the farthest prediction is off, as a factor above 1 in either direction."""
    ratios = table["predicted / measured"]
    return float(np.maximum(ratios, 1 / ratios).max())


def _probes() -> dict[object, Callable[[], object]]:
    """Functions that time one property of the processor each."""
    a, b = torch.randn(_PRODUCT, _PRODUCT), torch.randn(_PRODUCT, _PRODUCT)
    values = torch.randn(_VECTOR)
    probes = {"product": lambda: a @ b, "gelu": lambda: F.gelu(values), "exp": lambda: torch.exp(values)}
    for size in _WORKING_SETS:
        source = torch.randn(size // 8)  # as many bytes written as read
        probes["copy", size] = lambda source=source: source * 1.5
    return probes
