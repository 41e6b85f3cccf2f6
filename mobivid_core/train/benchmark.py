"""The training loop against a plain one, on this machine, in one run: `accelerated()`, which notebook 02 shows.

Both arms train the miniature teacher on the same random batches, each in a process of its own, because the allocator
reads its settings at start. The plain arm is what one writes first: float32, eager, torch's AdamW with its defaults.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median_high

import pandas as pd
import torch

from mobivid_core.errors import TrainingError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import flow_batch, flow_error
from mobivid_core.memory import GLIBC_ENVIRONMENT
from mobivid_core.models.config import MINI_SERVER, SMOKE_SERVER, DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.text import MAX_LENGTH
from mobivid_core.paths import project_root
from mobivid_core.train.distributed import average_gradients, processes, split, total
from mobivid_core.train.speed import SpeedPlan, compile_blocks, usable_cores

#: Sizes that may be measured, by name.
SIZES = {"mini": MINI_SERVER, "smoke": SMOKE_SERVER}
_GRID, _TEXT_TOKENS = (3, 4, 4), MAX_LENGTH


@dataclass(frozen=True)
class Arm:
    """What is switched on."""

    name: str
    malloc: bool = False  # glibc keeps freed memory
    bf16: bool = False  # bfloat16 autocast, attention written out
    compiled: bool = False
    fused: bool = False  # AdamW in one fused kernel
    processes: int = 1  # processes that share each batch, with one thread each


PLAIN = Arm("plain float32 eager loop")


def everything(plan: SpeedPlan) -> Arm:
    """All that this machine has."""
    malloc = plan.malloc or "not set" in plan.reasons.get("malloc", "")
    return Arm("all together", malloc, plan.bf16, plan.compiled, fused=True, processes=plan.threads)


def compare(chosen: Sequence[Arm], *, sizes: str = "mini", batch: int = 64, seconds: float = 6.0) -> pd.DataFrame:
    """Time each arm, for `seconds` of measured steps after warm-up and compiling; a failed one is a `TrainingError`.

    One row an arm: `seconds_per_step` (median), `cpu_s_per_step` (of all threads, which other programs disturb less),
    `steps`, `start_s` (first steps, compiling included), `loss` after as many steps, `speedup` over the first arm.
    """
    frame = pd.DataFrame([_measure(arm, sizes, batch, seconds) for arm in chosen])
    frame["speedup"] = frame["seconds_per_step"].iloc[0] / frame["seconds_per_step"]
    return frame


def accelerated(*, sizes: str = "mini", batch: int = 64, seconds: float = 6.0, brief: bool = False) -> pd.DataFrame:
    """The plain loop against all speed-ups of this machine: two rows, as `compare`.

    `brief` leaves out what takes a minute to start: compiling, and a process for each core.
    """
    arm = everything(SpeedPlan.detect())
    arm = replace(arm, compiled=False, processes=1) if brief else arm
    return compare([PLAIN, arm], sizes=sizes, batch=batch, seconds=seconds)


def _measure(arm: Arm, sizes: str, batch: int, seconds: float) -> dict[str, object]:
    request = json.dumps({"arm": asdict(arm), "sizes": sizes, "batch": batch, "seconds": seconds})
    environment = {k: v for k, v in os.environ.items() if k not in GLIBC_ENVIRONMENT}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(project_root()), environment.get("PYTHONPATH")]))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(arm.processes)]
    done = subprocess.run(
        [sys.executable, *launcher * (arm.processes > 1), "-m", __name__, request],
        env=environment | (GLIBC_ENVIRONMENT if arm.malloc else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrainingError(f"the arm {arm.name!r} of the speed comparison failed:\n{done.stderr[-2000:]}")
    return {"arm": arm.name, **json.loads(done.stdout.splitlines()[-1])}


def _run(arm: Arm, sizes: DiTConfig, batch: int, seconds: float) -> dict[str, float]:
    """Train in this process, or in its share of several; returns the measurements of one row."""
    state = processes()
    torch.set_num_threads(1 if arm.processes > 1 else usable_cores())
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(sizes)
    if arm.compiled:
        compile_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=arm.fused or None)
    mask = torch.arange(_TEXT_TOKENS)[None] < 12

    def step(index: int) -> float:
        generator = torch.Generator().manual_seed(index)
        latents = torch.randn(batch, sizes.in_channels, *_GRID, generator=generator)
        text = torch.randn(batch, _TEXT_TOKENS, sizes.text_dim, generator=generator)
        whole = flow_batch(latents, Condition(text, mask.expand(batch, -1)), generator, drop_text=0)
        ((part, share),) = split(whole, state.process_index, state.num_processes)
        with torch.autocast("cpu", torch.bfloat16, enabled=arm.bf16):
            loss = flow_error(model, *part)
        optimizer.zero_grad(set_to_none=True)
        (loss * share).backward()
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total({"loss": loss.item() * share})["loss"]

    began, times, busy = time.perf_counter(), [], []
    loss = [step(index) for index in range(3)][-1]
    start_s = time.perf_counter() - began
    while len(times) < 3 or total({"seconds": sum(times)})["seconds"] < seconds * state.num_processes:
        before, busy_before = time.perf_counter(), time.process_time()
        step(3 + len(times))
        times.append(time.perf_counter() - before)
        busy.append(time.process_time() - busy_before)
    cpu = total({"seconds": median_high(busy)})["seconds"]
    row = {"seconds_per_step": median_high(times), "cpu_s_per_step": cpu, "steps": len(times)}
    return row | {"start_s": round(start_s, 2), "loss": loss}


if __name__ == "__main__":  # an arm's own process
    asked = json.loads(sys.argv[1])
    found = _run(Arm(**asked["arm"]), SIZES[asked["sizes"]], asked["batch"], asked["seconds"])
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))
