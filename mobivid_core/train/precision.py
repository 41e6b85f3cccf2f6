"""Choose float32 or bfloat16 by timing both on this machine, for the layers at hand.

A processor's flags do not tell. On Xeons with AMX units bfloat16 is three to five times as fast; among those with
avx512_bf16 alone it was four times as fast on one and half as fast on another; on the rest it is emulated, ten times
slower and more. Timing takes a tenth of a second and is kept for each machine in `runs/precision.json`. It counts one
thread's processor time: threads that wait for each other on a busy machine once made attention look a thousand times
slower than it is, and emulated bfloat16 the better choice.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.errors import RunError
from mobivid_core.files import read_json, write_json
from mobivid_core.models.config import MINI_SERVER
from mobivid_core.paths import runs_dir

#: bfloat16 has 8 bits of precision: a smaller gain than this is not worth them, and timings scatter by as much.
MARGIN = 1.15
FILE = "precision.json"
_REPEATS = 7
#: A slower call is not repeated more than once: emulated bfloat16 takes long, and the verdict is clear.
_SLOW_S = 0.1
#: Variables that change which instructions the libraries use.
_ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")

#: A workload: called with True it computes in bfloat16.
Work = Callable[[bool], object]
#: Seconds of a workload in float32 and in bfloat16.
Seconds = tuple[float, float]


def _tensor(*shape: int) -> Tensor:
    # a generator of its own: timing must not move the global one, or cached and timed runs would differ
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).div_(shape[-1] ** 0.5).requires_grad_()


def _layers(forward: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Work:
    """Forward and backward of some layers, of inputs of these shapes."""
    inputs = [_tensor(*shape) for shape in shapes]

    def work(half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = forward(*inputs)
        torch.autograd.grad(y.float().sum(), inputs)

    return work


def _orthogonalise() -> Work:
    """One Newton-Schulz iteration of Muon on a matrix of every block, conversions included."""
    matrices = _tensor(MINI_SERVER.blocks, MINI_SERVER.hidden, MINI_SERVER.ffn_widths[0]).detach()

    def work(half: bool) -> None:
        x = matrices.to(torch.bfloat16 if half else torch.float32)
        gram = x @ x.mT
        torch.baddbmm(x, torch.baddbmm(gram, gram, gram), x).float()

    return work


_WIDTH, _INNER = MINI_SERVER.hidden, MINI_SERVER.ffn_widths[0]
_HEADS = 32, MINI_SERVER.self_heads[0], 48, MINI_SERVER.head_dim
#: What is timed, by name: the teacher's layers on 32 clips of 48 tokens (attention written out), and a codec's.
WORKLOADS: Mapping[str, Callable[[], Work]] = {
    "linear": lambda: _layers(
        lambda x, up, down: F.linear(F.linear(x, up), down), (32 * 48, _WIDTH), (_INNER, _WIDTH), (_WIDTH, _INNER)
    ),
    "attention": lambda: _layers(lambda q, k, v: (q @ k.mT).softmax(-1) @ v, _HEADS, _HEADS, _HEADS),
    "convolution": lambda: _layers(lambda x, kernel: F.conv2d(x, kernel, padding=1), (8, 64, 32, 32), (64, 64, 3, 3)),
    "orthogonalise": _orthogonalise,
}
#: What a diffusion transformer, a convolutional net (VAE, judge) and Muon spend their time in.
DIT, CONVOLUTIONAL, MUON = ("linear", "attention"), ("convolution",), ("orthogonalise",)


@dataclass(frozen=True)
class Precision:
    """What was chosen, and why."""

    bf16: bool
    reason: str

    def __str__(self) -> str:
        return f"{'bfloat16' if self.bf16 else 'float32'}: {self.reason}"


def choose(kinds: Sequence[str]) -> Precision:
    """Float32 or bfloat16 for layers of these kinds (e.g. `DIT`) on this machine's processor."""
    return decide({kind: _kept(kind, runs_dir("any").parent / FILE) for kind in kinds})


def whole_training(device: torch.device | str, bf16: bool) -> torch.autocast:
    """The context of a whole training in bfloat16 (or none): weights are cast anew in each step, not once for all."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16, cache_enabled=False)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--bf16` and `--no-bf16`; `asked` reads them."""
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="compute in bfloat16, or in float32; without either, whichever is faster here (timed once)",
    )


def asked(bf16: bool | None, kinds: Sequence[str], device: str = "cpu") -> bool:
    """What a command line asked for, else what is faster (GPUs are not timed); the first process prints why."""
    if bf16 is not None:
        return bf16
    if device == "cpu":
        precision = choose(kinds)
    else:
        native = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        precision = Precision(native, f"this {device} device {'has' if native else 'lacks'} it")
    if os.environ.get("RANK", "0") == "0":
        print(f"precision: {precision}")
    return precision.bf16


def decide(seconds: Mapping[str, Seconds]) -> Precision:
    """bfloat16 where all kinds together gain `MARGIN` by it."""
    single, half = (sum(pair[i] for pair in seconds.values()) for i in (0, 1))
    gain = single / half
    speed = f"{gain:.1f} times as fast as" if gain >= 1 else f"{1 / gain:.1f} times slower than"
    if 1 / MARGIN < gain < MARGIN:
        speed = "no faster than" if gain < 1.05 else f"hardly faster ({gain:.2f} times) than"
    return Precision(gain >= MARGIN, f"bfloat16 {speed} float32, timed on {' and '.join(seconds)}")


def timed(work: Work, clock: Callable[[], float] = time.thread_time) -> Seconds:
    """Least processor seconds of a workload in float32 and in bfloat16, taken in turn."""
    best = [math.inf, math.inf]
    for repeat in range(_REPEATS + 1):
        for half in (False, True):
            if repeat > 1 and best[half] > _SLOW_S:
                continue
            began = clock()
            work(half)
            best[half] = min(best[half], clock() - began)
    return best[0], best[1]


@cache
def _kept(kind: str, file: Path) -> Seconds:
    """The timing of one kind: from `file`, else measured now and written there."""
    machine = _machine()
    with contextlib.suppress(LookupError, TypeError, ValueError):  # not timed yet, or a strange file
        single, half = _read(file)[machine][kind]
        if 0 < single < math.inf and 0 < half < math.inf:
            return single, half
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # else the clock misses what other threads do
    try:
        with torch.inference_mode(False), torch.enable_grad():
            seconds = timed(WORKLOADS[kind]())
    finally:
        torch.set_num_threads(before)
    records = _read(file)  # another process may have added to it
    with contextlib.suppress(RunError, OSError):  # a folder that cannot be written costs a tenth of a second a run
        write_json(file, records | {machine: records.get(machine, {}) | {kind: list(seconds)}})
    return seconds


def _read(file: Path) -> dict[str, dict[str, object]]:
    """All timings; none where the file is missing, torn or strange."""
    with contextlib.suppress(RunError, OSError, AttributeError, TypeError, ValueError):
        return {machine: dict(record) for machine, record in read_json(file, {}).items()}
    return {}


def processor(file: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """What Linux says of the first processor, `flags` for one; empty elsewhere."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {line.split(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)}


def _machine() -> str:
    """A name for all that the speed depends on; virtual machines call many processors by one name, hence the flags."""
    facts = processor()
    name = facts.get("model name") or platform.processor() or platform.machine()
    told = [facts.get(key, "") for key in ("cpu family", "model", "stepping", "flags")]
    told += [os.environ.get(variable, "") for variable in _ISA_VARIABLES]
    digest = hashlib.sha256("|".join(told).encode()).hexdigest()[:8]
    return f"{name}, {platform.system()} {digest}, torch {torch.__version__}"
