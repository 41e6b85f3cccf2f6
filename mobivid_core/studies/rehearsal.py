"""Dress rehearsal of the chain for your own weights: LTX-Video's full shape, random weights, on this machine.

    mobivid study rehearsal

Every step is the subcommand that a user runs, in a process of its own: its wall seconds and its peak memory (resident
set, mapped weight files included) go into a record, beside the FLOPs it takes. Random weights say nothing about
quality. Paper: its 2 B server model has this shape; nothing of it was ever run here on real weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from mobivid_core.command import CommandParser, at_least_one, given_path, run_command
from mobivid_core.errors import RunError
from mobivid_core.models.counts import dit_flops, latent_grid
from mobivid_core.show.outcome import TableResult
from mobivid_core.studies.records import read_study, record_folder, write_record

COMMAND, RECORD = "mobivid study rehearsal", "ltx_rehearsal"
#: LTX-Video 2B: blocks, heads, head width.
BLOCKS, HEADS, HEAD_DIM = 28, 32, 64
#: Budget of the paper's mobile model, as a share of LTX-Video's parameters.
BUDGET, WHOLE = 0.96e9, 1_923_385_472
#: Bars: seconds of a step, and memory of all.
BARS_S = {"inspect": 10, "score": 1800, "prune and save": 300}
BAR_GB = 20
_STEP = "--step"


@dataclass(frozen=True)
class Clip:
    """The clip and text that all steps work on."""

    frames: int = 49
    height: int = 384
    width: int = 512
    tokens: int = 128

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent cells (t, h, w)."""
        return latent_grid(self.frames, self.height, self.width)

    def options(self) -> list[str]:
        """As words of a subcommand."""
        sizes = {"frames": self.frames, "height": self.height, "width": self.width, "text-tokens": self.tokens}
        return [word for name, value in sizes.items() for word in (f"--{name}", str(value))]


def rehearse(
    work: Path, *, blocks: int, heads: int, samples: int, probes: int = 1, clip: Clip
) -> tuple[pd.DataFrame, dict]:
    """Run every step in a folder, which gets about 7 GB at full size: (a row a step, facts of machine and settings).

    A trial has fewer `blocks` and `heads`; `samples` and `probes` are of scoring. A step that fails is a `RunError`
    with its last line.
    """
    rows = []
    for step, command, tflop in _steps(work, blocks, heads, samples, probes, clip):
        # a name that begins with "@" lies in the work folder
        words = [f"{work}/{word[1:]}" if word.startswith("@") else word for word in command.split()]
        # An exported package outside the gates (status 1) is a result; in any other step 1 is a crash.
        allowed = (0, 1) if step.startswith("export") else (0,)
        seconds, peak = run_measured([sys.executable, "-m", "mobivid_core", *words], allowed)
        rows.append({"step": step, "seconds": seconds, "peak_gb": peak, "tflop": tflop})
        print(f"{step}: {seconds:.1f} s, {peak:.2f} GB", flush=True)
    forward = json.loads((work / "forward.json").read_text(encoding="utf-8"))
    facts = {
        "blocks": blocks, "heads": heads, "samples": samples, "probes": probes, "grid": list(clip.grid),
        "text_tokens": clip.tokens, "tokens": math.prod(clip.grid), "dtype": forward["dtype"].removeprefix("torch."),
        "load_s": forward["load_s"], "forward_s": forward["forward_s"], "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""), "machine": platform.machine(), "command": COMMAND,
    }  # fmt: skip
    return pd.DataFrame(rows), facts


def _steps(
    work: Path, blocks: int, heads: int, samples: int, probes: int, clip: Clip
) -> Iterator[tuple[str, str, float]]:
    """(step, words of its subcommand, TFLOP it takes); each is asked for when those before it have run."""
    from mobivid_core.ltx.layout import ltx_sizes
    from mobivid_core.ltx.score import score_flops
    from mobivid_core.prune.costs import parameter_cost
    from mobivid_core.prune.plan import PruningPlan

    sizes, of_clip = ltx_sizes(blocks, heads, HEAD_DIM), " ".join(clip.options())
    forward = dit_flops(sizes, clip.grid, clip.tokens)["total"] / 1e12
    budget = int(BUDGET / WHOLE * parameter_cost(sizes).total(sizes))
    shape = f"--blocks {blocks} --heads {heads} --samples {samples}"
    yield "write random weights", f"study rehearsal @ {_STEP} weights {shape} {of_clip}", 0.0
    yield "inspect", f"inspect --model @ltx {of_clip}", 0.0
    flops = score_flops(sizes, clip.grid, clip.tokens, samples, probes) / 1e12
    scoring = f"--out @scores --samples {samples} --probes {probes}"
    yield "score", f"score --model @ltx --data @data {scoring}", flops
    yield "plan", f"plan --model @ltx --scores @scores --params {budget} --out @plan.json", 0.0
    yield "prune and save", f"prune --model @ltx --plan @plan.json --out @student {of_clip}", 0.0
    small = dit_flops(PruningPlan.load(work / "plan.json").sizes, clip.grid, clip.tokens)["total"] / 1e12
    layers = "--layers blocks.0.attn1 blocks.0.attn2 blocks.0.ffn"
    refitted = f"--student @student --out @refitted --samples {samples} {layers}"
    yield "refit one block of each kind", f"refit --model @ltx --data @data {refitted}", 0.0
    yield "load and one forward pass", f"study rehearsal @ {_STEP} forward", small
    yield "export one block", f"export --model @student --out @packages --block 0 {of_clip}", 0.0
    yield "a forward pass of the source", f"study rehearsal @ {_STEP} source", forward


def run_measured(words: Sequence[str], allowed: Sequence[int] = (0,)) -> tuple[float, float]:
    """Wall seconds and peak resident memory (GB, sampled twenty times a second) of a command in its own process.

    The system's own maximum would not do: a new process starts with that of the one that made it. A failure is a
    `RunError`.
    """
    began, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as errors:
        child = psutil.Popen(list(words), stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while child.poll() is None:
                with contextlib.suppress(psutil.Error):  # it may just have ended
                    peak = max(peak, child.memory_info().rss)
                time.sleep(0.05)
        finally:  # Ctrl-C leaves no step behind
            if child.poll() is None:
                child.kill()
                child.wait()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1]
    if child.returncode not in allowed:
        raise RunError(f"{' '.join(words[1:5])} ... ended with status {child.returncode}: {last}")
    return time.perf_counter() - began, peak / 1e9


def headlines() -> dict[str, float]:
    """`rehearsal_score_minutes` and `rehearsal_peak_gb` from the record; a `CheckpointError` where there is none."""
    rows, _ = read_study(RECORD, "rehearsal")
    seconds = rows.set_index("step")["seconds"]
    return {"rehearsal_score_minutes": float(seconds["score"]) / 60, "rehearsal_peak_gb": float(rows["peak_gb"].max())}


def table() -> TableResult:
    """The record with each step's bar, and the seconds that its FLOPs would take at 100 TFLOP/s (derived)."""
    rows, facts = read_study(RECORD, "rehearsal")
    rows["bar_s"] = rows["step"].map(BARS_S)
    rows["s at 100 TFLOP/s"] = rows["tflop"] / 100
    judged = rows.dropna(subset="bar_s")
    met = [f"{row.step} {'met' if row.seconds <= row.bar_s else 'missed'}" for row in judged.itertuples()]
    peak = rows["peak_gb"].max()
    return TableResult(
        rows,
        f"{facts['blocks']} blocks x {facts['heads']} heads with random weights, {facts['tokens']:,} tokens, "
        f"bfloat16 weights, {facts['dtype']} arithmetic, {facts['samples']} samples, {facts['cores']} cores. "
        f"Bars on seconds: {', '.join(met)}. "
        f"Largest memory {peak:.1f} GB (bar {BAR_GB}: {'met' if peak <= BAR_GB else 'missed'}).",
        "recorded",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chain on random weights of LTX-Video's shape and record seconds and memory of each step."""
    parser = CommandParser("study rehearsal", main.__doc__)
    parser.add_argument("work", nargs="?", type=given_path, help="folder for weights (7 GB); default: a temporary one")
    parser.add_argument("--blocks", type=at_least_one, default=BLOCKS, help="fewer for a trial, which needs --record")
    parser.add_argument("--heads", type=at_least_one, default=HEADS, help="likewise")
    parser.add_argument("--samples", type=at_least_one, default=3, help="samples of scoring")
    parser.add_argument("--probes", type=at_least_one, default=1, help="probes of scoring")
    parser.add_argument("--record", type=given_path, help="where the record goes (without suffix)")
    for name, default in (("frames", 49), ("height", 384), ("width", 512), ("text-tokens", 128)):
        parser.add_argument(f"--{name}", type=at_least_one, default=default, help="of the clip")
    parser.add_argument(_STEP, choices=("weights", "forward", "source"), help=argparse.SUPPRESS)
    return run_command(_main, parser, arguments)


def _main(options: argparse.Namespace) -> None:
    clip = Clip(options.frames, options.height, options.width, options.text_tokens)
    if options.step == "weights":
        _write(options.work, options.blocks, options.heads, options.samples, clip)
    elif options.step:
        _forward(options.work, options.step)
    else:
        whole = (options.blocks, options.heads) == (BLOCKS, HEADS)
        if not whole and options.record is None:
            raise RunError("a trial at another size needs --record: the project's record is of the full size")
        with tempfile.TemporaryDirectory(prefix="mobivid-rehearsal-") as temporary:
            work = options.work or Path(temporary)
            sizes = {name: getattr(options, name) for name in ("blocks", "heads", "samples", "probes")}
            rows, facts = rehearse(work, **sizes, clip=clip)
        write_record(options.record or record_folder() / RECORD, rows, facts)
        print(rows.to_string(index=False, float_format="%.3g"))


def _write(work: Path, blocks: int, heads: int, samples: int, clip: Clip) -> None:
    from mobivid_core.ltx.layout import ltx_sizes
    from mobivid_core.ltx.random_weights import write_random_data, write_random_ltx

    sizes = ltx_sizes(blocks, heads, HEAD_DIM)
    write_random_ltx(work / "ltx", sizes)
    write_random_data(work / "data", sizes, clip.grid, samples, clip.tokens)


def _forward(work: Path, which: str) -> None:
    """Load the student (or its source) and run it once."""
    import torch

    from mobivid_core.ltx.checkpoint import computing_dtype, load_transformer
    from mobivid_core.ltx.shards import LatentShards, as_inputs

    began = time.perf_counter()
    folder = work / ("student" if which == "forward" else "ltx")
    model = load_transformer(folder, computing_dtype(folder, torch.device("cpu")))
    loaded = time.perf_counter()
    batch = as_inputs(LatentShards(work / "data", model.sizes).calibration(1), model)
    with torch.no_grad():
        sample = model(batch.noisy, batch.timestep, batch.text, batch.mask).sample
    if not bool(torch.isfinite(sample).all()):
        raise RunError("the forward pass gave values that are not finite")
    if which == "forward":
        seconds = {"load_s": loaded - began, "forward_s": time.perf_counter() - loaded, "dtype": str(model.dtype)}
        (work / "forward.json").write_text(json.dumps(seconds), encoding="utf-8")
