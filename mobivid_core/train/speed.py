"""Speed-ups of training on a processor behind one switch, each only where the machine supports it.

- **Allocator**: glibc hands freed buffers back to the system; keeping them saves page faults on large layers. It reads
  its settings once, at start, hence `relaunch`.
- **bfloat16**: several times faster than float32 on some processors, slower on others; both are timed (`precision`).
- **Compiling**: torch.compile fuses elementwise layers; it needs a C++ compiler, and a minute at the first run.
- **Threads**: one for each core that this process may use, not one for each hyperthread.

`mobivid bench speed` prints what this machine gets; `train.benchmark` measures it.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from mobivid_core.command import CommandParser, run_command
from mobivid_core.flow.path import predicted_velocity
from mobivid_core.flow.sampling import in_bfloat16
from mobivid_core.memory import GLIBC_ENVIRONMENT
from mobivid_core.train.precision import CONVOLUTIONAL, DIT, MUON, choose, processor

_RELAUNCHED = "MOBIVID_RELAUNCHED"


@dataclass(frozen=True)
class SpeedPlan:
    """Which speed-ups are on, and why."""

    malloc: bool  # this process runs with glibc's allocator settings
    bf16: bool  # compute in bfloat16
    compiled: bool  # compile the model's blocks
    threads: int  # threads of a matrix product
    reasons: Mapping[str, str]  # why each is on or off, by name

    @classmethod
    def detect(cls, brief: bool = False) -> SpeedPlan:
        """What this machine and process allow; a brief run leaves compiling out, which takes a while to pay."""
        if torch.cuda.is_available():
            return cls(False, True, True, torch.get_num_threads(), {"device": "GPU: bf16 and compiling"})
        # processes of one launcher share the machine
        threads = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        precision = choose(DIT)
        glibc, kept = platform.libc_ver()[0] == "glibc", malloc_is_set()
        compiler = None if brief else cpp_compiler()
        without = "left out of a brief run" if brief else "no C++ compiler found (install g++ or clang)"
        reasons = {
            "malloc": "keeps freed memory" if kept else "glibc, not set" if glibc else "not glibc",
            "bf16": precision.reason.removeprefix("bfloat16 "),
            "compile": f"with {compiler}" if compiler else without,
            "threads": f"{threads} usable cores a process",
        }
        return cls(kept, precision.bf16, compiler is not None, threads, reasons)

    @classmethod
    def started(cls) -> SpeedPlan:
        """As `detect`, with allocator (see `relaunch`) and threads set; the rest is for whoever builds the model."""
        relaunch()
        plan = cls.detect()
        torch.set_num_threads(plan.threads)
        return plan

    def __str__(self) -> str:
        on = {"malloc": self.malloc, "bf16": self.bf16, "compile": self.compiled, "threads": True}
        parts = [f"{name} {'on' if on.get(name, True) else 'off'} ({reason})" for name, reason in self.reasons.items()]
        return "speed-ups: " + "; ".join(parts)


def compile_blocks(model: nn.Module) -> nn.Module:
    """The model with its blocks compiled, in place: one block's code serves all of them, in seconds, not minutes."""
    # All blocks share one forward function: each width, type and kind of gradient counts as a recompilation of it, and
    # beyond the limit torch computes uncompiled without a word.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, 64)
    for block in model.blocks:
        block.compile()
    return model


class Accelerated(nn.Module):
    """A frozen copy of a diffusion model, called as that is, that samples as fast as this machine can."""

    def __init__(self, model: nn.Module, plan: SpeedPlan) -> None:
        super().__init__()
        self.plan = plan
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        if plan.compiled:
            compile_blocks(self.model)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The velocity, in the inputs' precision."""
        if self.plan.bf16:
            return in_bfloat16(self.model)(*inputs)
        return predicted_velocity(self.model(*inputs))


def has_amx_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has AMX units for bfloat16 (Linux says so); a fact for records: choices are timed."""
    return "amx_bf16" in processor(cpuinfo).get("flags", "").split()


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would find, or None."""
    names = [os.environ.get("CXX"), "g++", "clang++"]
    return next((name for name in names if name and shutil.which(name)), None)


def malloc_is_set() -> bool:
    """Whether this process was started with the allocator's settings."""
    return platform.libc_ver()[0] == "glibc" and all(os.environ.get(k) == v for k, v in GLIBC_ENVIRONMENT.items())


def usable_cores() -> int:
    """Physical cores that this process may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def relaunch() -> None:
    """Start this very command line again with the allocator's settings; call it first in a command.

    It returns where nothing is gained: another C library, settings in place, a process that a launcher started.
    """
    launched = "LOCAL_RANK" in os.environ or _RELAUNCHED in os.environ
    if launched or malloc_is_set() or platform.libc_ver()[0] != "glibc":
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | GLIBC_ENVIRONMENT | {_RELAUNCHED: "1"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: say what this machine gets; returns the exit status."""

    def say(_: argparse.Namespace) -> None:
        relaunch()
        print(SpeedPlan.detect())
        for name, kinds in {"transformer": DIT, "VAE and judge": CONVOLUTIONAL, "Muon": MUON}.items():
            print(f"{name}: {choose(kinds)}")

    return run_command(say, CommandParser("bench speed", main.__doc__), arguments)
