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
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import dit_flops, latent_grid
from mobivid_core.paths import project_root
from mobivid_core.show.outcome import TableResult
from mobivid_core.studies.records import read_record, write_record

COMMAND = "mobivid study rehearsal"
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


def record_path() -> Path:
    """Where the full rehearsal's record lies."""
    return project_root() / "data" / "benchmarks" / "ltx_rehearsal"


def rehearse(
    work: Path, *, blocks: int = BLOCKS, heads: int = HEADS, samples: int = 3, probes: int = 1, clip: Clip | None = None
) -> tuple[pd.DataFrame, dict]:
    """Run every step in a folder, which gets about 7 GB at full size: (a row a step, facts of machine and settings).

    A trial has fewer `blocks` and `heads`; `samples` and `probes` are of scoring. A step that fails is a `RunError`
    with its last line.
    """
    from mobivid_core.ltx.layout import ltx_sizes

    clip = clip or Clip()
    sizes = ltx_sizes(blocks, heads, HEAD_DIM)
    rows = []
    for step, words, tflop in _steps(work, sizes, samples, probes, clip):
        # An exported package outside the gates (status 1) is a result; in any other step 1 is a crash.
        seconds, peak = run_measured(words, allowed=(0, 1) if step.startswith("export") else (0,))
        rows.append({"step": step, "seconds": seconds, "peak_gb": peak, "tflop": tflop})
        print(f"{step}: {seconds:.1f} s, {peak:.2f} GB", flush=True)
    load_and_forward = json.loads((work / "forward.json").read_text(encoding="utf-8"))
    facts = {
        "blocks": blocks, "heads": heads, "samples": samples, "probes": probes, "grid": list(clip.grid),
        "text_tokens": clip.tokens, "tokens": clip.grid[0] * clip.grid[1] * clip.grid[2],
        "dtype": load_and_forward["dtype"].removeprefix("torch."),
        "load_s": load_and_forward["load_s"], "forward_s": load_and_forward["forward_s"], "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""), "machine": platform.machine(), "command": COMMAND,
    }  # fmt: skip
    return pd.DataFrame(rows), facts


def _steps(
    work: Path, sizes: DiTConfig, samples: int, probes: int, clip: Clip
) -> Iterator[tuple[str, list[str], float]]:
    """(step, its command's words, TFLOP it takes)."""
    from mobivid_core.ltx.score import score_flops
    from mobivid_core.prune.costs import parameter_cost
    from mobivid_core.prune.plan import PruningPlan

    total = parameter_cost(sizes).total(sizes)
    forward = dit_flops(sizes, clip.grid, clip.tokens)["total"] / 1e12
    model, data = ["--model", str(work / "ltx")], ["--data", str(work / "data")]
    mobivid = [sys.executable, "-m", "mobivid_core"]
    here = [*mobivid, "study", "rehearsal", str(work)]
    shape = ["--blocks", str(sizes.blocks), "--heads", str(sizes.rope_span), "--samples", str(samples)]
    yield "write random weights", [*here, _STEP, "weights", *shape, *clip.options()], 0.0
    yield "inspect", [*mobivid, "inspect", *model, *clip.options()], 0.0
    scores = ["--out", str(work / "scores"), "--samples", str(samples), "--probes", str(probes)]
    flops = score_flops(sizes, clip.grid, clip.tokens, samples, probes) / 1e12
    yield "score", [*mobivid, "score", *model, *data, *scores], flops
    budget = ["--params", str(int(BUDGET / WHOLE * total)), "--out", str(work / "plan.json")]
    yield "plan", [*mobivid, "plan", *model, "--scores", str(work / "scores"), *budget], 0.0
    cut = ["--plan", str(work / "plan.json"), "--out", str(work / "student"), *clip.options()]
    yield "prune and save", [*mobivid, "prune", *model, *cut], 0.0
    plan = PruningPlan.load(work / "plan.json")
    layers = ["--layers", *(f"blocks.0.{part}" for part in ("attn1", "attn2", "ffn"))]
    refitted = ["--student", str(work / "student"), "--out", str(work / "refitted"), "--samples", str(samples)]
    yield "refit one block of each kind", [*mobivid, "refit", *model, *data, *refitted, *layers], 0.0
    small = dit_flops(plan.sizes, clip.grid, clip.tokens)["total"] / 1e12
    yield "load and one forward pass", [*here, _STEP, "forward"], small
    export = ["--out", str(work / "packages"), "--block", "0", *clip.options()]
    yield "export one block", [*mobivid, "export", "--model", str(work / "student"), *export], 0.0
    yield "a forward pass of the source", [*here, _STEP, "source"], forward


def run_measured(words: Sequence[str], allowed: Sequence[int] = (0,)) -> tuple[float, float]:
    """Wall seconds and peak resident memory (GB, sampled twenty times a second) of a command in its own process.

    The system's own maximum would not do: a new process starts with that of the one that made it.

    Raises:
        RunError: It failed.
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
    rows, _ = read_record(record_path(), COMMAND)
    seconds = rows.set_index("step")["seconds"]
    return {"rehearsal_score_minutes": float(seconds["score"]) / 60, "rehearsal_peak_gb": float(rows["peak_gb"].max())}


def table() -> TableResult:
    """The record with each step's bar, and the seconds that its FLOPs would take at 100 TFLOP/s (derived)."""
    rows, facts = read_record(record_path(), COMMAND)
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
            size = {"blocks": options.blocks, "heads": options.heads}
            rows, facts = rehearse(work, **size, samples=options.samples, probes=options.probes, clip=clip)
        write_record(options.record or record_path(), rows, facts)
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
