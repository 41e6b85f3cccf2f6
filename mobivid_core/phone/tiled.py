"""The FFN in tiles over its hidden axis: less live memory, the same result up to summation order.

Paper: the on-device section's tiled GEMM (about 10 % end to end, data/paper claim C25). With hidden rows W1_i and
columns W2_i of tile i,

    y = b2 + sum_i W2_i gelu(W1_i x + b1_i)

is exact, because the hidden axis is only ever summed over; the hidden activation shrinks from (N, F) to (N, F/k).
Simplified: plain torch products on this device. What the Neural Engine gains also depends on its own scheduling.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import Interval, speed
from mobivid_core.phone.turns import alternating_seconds


def tile_bounds(width: int, tiles: int) -> list[tuple[int, int]]:
    """Start and end of each tile of the hidden axis; sizes differ by at most one."""
    if not 1 <= tiles <= max(width, 1):
        raise ParameterError(f"tiles={tiles} for an FFN of width {width}: choose 1 to {max(width, 1)}")
    edges = [width * i // tiles for i in range(tiles + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def tiled_ffn(x: Tensor, up: nn.Linear, down: nn.Linear, tiles: int) -> Tensor:
    """Linear-GELU-Linear of x (..., hidden) in `tiles` slices of the hidden axis; 1 is the plain FFN.

    The result (..., hidden) is equal to the plain FFN's up to the order of summation.
    """
    bounds = tile_bounds(up.out_features, tiles)
    if len(bounds) == 1:
        return down(F.gelu(up(x)))
    flat = x.reshape(-1, x.shape[-1])
    total = down.bias.expand(flat.shape[0], -1).clone()
    for start, end in bounds:
        hidden = F.gelu(F.linear(flat, up.weight[start:end], up.bias[start:end]))
        # addmm accumulates in the product itself: no second (N, hidden) buffer for the partial sums.
        total = total.addmm_(hidden, down.weight[:, start:end].t())
        del hidden  # else it is still alive while the next tile's is made
    return total.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True)
class TileTiming:
    """One point of the tile sweep."""

    tiles: int
    repeats: tuple[float, ...]  # wall seconds of one FFN; all tile counts take turns
    hidden_mib: float  # hidden activation alive at once, from the shapes (derived)
    peak_mib: float  # largest sum of living tensors that the FFN made (measured)
    max_error: float  # largest absolute difference from the plain FFN, relative to its largest output

    @property
    def seconds(self) -> float:
        """Median of the repeats."""
        return median(self.repeats)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors made inside the context and still alive; `.peak` is the largest sum.

    Temporary buffers inside a kernel are invisible.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[object, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 (torch's signature)
        """Run the op and note what it made."""
        out = func(*args, **(kwargs or {}))
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given:  # views and in-place results make nothing new
                    self._alive[storage._cdata] = (weakref.ref(tensor), storage.nbytes())
        self._alive = {k: v for k, v in self._alive.items() if v[0]() is not None}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def measure_tiles(
    tokens: int, hidden: int, width: int, tile_counts: Sequence[int] = (1, 2, 4, 8, 16), *, repeats: int = 5,
    device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0,
) -> list[TileTiming]:  # fmt: skip
    """Time and peak memory of one FFN of random weights against its number of tiles, on this machine.

    Input (tokens, hidden), hidden activation (tokens, width); each is timed `repeats` times, after one warm-up.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        up, down = (nn.Linear(*sizes).to(device, dtype) for sizes in ((hidden, width), (width, hidden)))
        x = torch.randn(tokens, hidden).to(device, dtype)
    timings = []
    with torch.no_grad():
        plain = tiled_ffn(x, up, down, 1)
        seconds = alternating_seconds({k: partial(_finished, x, up, down, k) for k in tile_counts}, repeats)
        for k in tile_counts:
            with PeakMemory() as memory:
                y = tiled_ffn(x, up, down, k)
            alive = tokens * math.ceil(width / k) * x.element_size()
            error = ((y - plain).abs().max() / plain.abs().max()).item()
            timings.append(TileTiming(k, tuple(seconds[k]), alive / 2**20, memory.peak / 2**20, error))
    return timings


def chosen_tiles(timings: Sequence[TileTiming]) -> tuple[TileTiming, Interval]:
    """The fastest number of tiles, and the per cent that it gains over the first of `timings`, the plain FFN.

    The first third of the repeats chooses and the others judge: the best of several noisy times, judged by those very
    times, would gain even where tiling does nothing.
    """
    plain, *tiled = timings
    choosing = max(1, len(plain.repeats) // 3)
    best = min(tiled, key=lambda t: median(t.repeats[:choosing]))
    gain = speed([plain.repeats[choosing:]], [best.repeats[choosing:]])
    return best, Interval(*(100 * (x - 1) for x in gain), kind=gain.kind, over=gain.over, n=gain.n)


def working_set(
    tokens: int, hidden: int, width: int, tile_counts: Sequence[int], *, gb_s: float, flops_per_s: float
) -> list[dict[str, float]]:
    """What tiling changes on a phone of `gb_s` GB/s that reaches `flops_per_s`; sizes as in `measure_tiles`.

    One row a tile count: MB (1e6 bytes) of float16 activation and weights alive in a tile, and the time to write and
    read the whole hidden activation as a share of the FFN's arithmetic time (in %), were it to leave the chip.
    """
    seconds = 4 * tokens * hidden * width / flops_per_s
    spill = 2 * 2 * tokens * width / (gb_s * 1e9)
    return [
        {"tiles": k, "hidden activation (MB)": 2 * tokens * math.ceil(width / k) / 1e6,
         "weights of a tile (MB)": 2 * 2 * hidden * math.ceil(width / k) / 1e6,
         "DRAM time saved at most (%)": 100 * spill / seconds} for k in tile_counts
    ]  # fmt: skip


def accelerators() -> list[tuple[str, torch.dtype]]:
    """Devices to run the sweep on: the processor in float32, and a GPU in float16 where torch sees one."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [("cpu", torch.float32), *((kind, torch.float16) for kind, there in gpus.items() if there)]


def _finished(x: Tensor, up: nn.Linear, down: nn.Linear, tiles: int) -> None:
    """One FFN, and the end of a GPU's queue where there is one."""
    tiled_ffn(x, up, down, tiles)
    if x.device.type in ("cuda", "mps"):
        getattr(torch, x.device.type).synchronize()
