"""Notebook 06's tables and figures, each with its finding: counts, tiles, packages, weights, runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from mobivid_core.coreml.verify import Verification
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.config import MOBILE, SERVER, DiTConfig
from mobivid_core.models.counts import Grid, block_flops_split, dit_counts
from mobivid_core.phone.tiled import TileTiming, chosen_tiles
from mobivid_core.published import claim
from mobivid_core.show.outcome import FigureResult, TableResult
from mobivid_core.show.style import PALETTE

#: Nearer to torch by so much, in decibels, is what mixed bits have to reach at the bytes of uniform ones.
MIXED_BAR_DB = 3.0
#: Largest loss of the judge's accuracy against 16 bits.
MIXED_BAR_ACCURACY = 0.02


def models(entries: Mapping[str, tuple[DiTConfig, Grid, int]]) -> TableResult:
    """Sizes and work of each model: name -> (sizes, latent grid, text tokens)."""
    rows = []
    for name, (cfg, grid, text) in entries.items():
        total, split = dit_counts(cfg, grid, text)["total"], block_flops_split(cfg, grid, text)
        rows.append({
            "model": name, "tokens": grid[0] * grid[1] * grid[2], "params (M)": total.params / 1e6,
            "GFLOP a pass": total.flops / 1e9, "FFN (%)": 100 * split["FFN"] / sum(split.values()),
            "scores (%)": 100 * split["self-attention scores"] / sum(split.values()),
            "fp16 weights (MB)": total.weight_bytes / 1e6, "peak activation (MB)": total.peak_bytes / 1e6,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    mobile = table.set_index("model").filter(like="MOBILE", axis=0).iloc[0]
    finding = (
        f"Closed forms; published: {claim('C04')['value']} B server ({claim('C04')['evidence']}), "
        f"{claim('C13')['value']} B mobile ({claim('C13')['evidence']}). The FFN takes {mobile['FFN (%)']:.0f} % of a "
        f"mobile pass, the scores of quadratic attention {mobile['scores (%)']:.0f} %."
    )
    return TableResult(table, finding, "derived", "Table 1")


def ladder(table: pd.DataFrame) -> TableResult:
    """`predictions.cost_ladder`."""
    finding = (
        f"Steps and guidance together give {table['cheaper in all'].iloc[2]:.0f}x, pruning another "
        f"{table['cheaper than the row above'].iloc[3]:.2f}x."
    )
    return TableResult(table, finding, "derived", "Table 1")


def tiles(sweeps: Mapping[str, Sequence[TileTiming]]) -> tuple[FigureResult, Interval]:
    """Time and memory against tiles, and the per cent that the chosen number of tiles gains on the processor."""
    timings = sweeps["cpu"]
    best, gain = chosen_tiles(timings)
    others = ", ".join(f"{kind}: {chosen_tiles(found)[1]}" for kind, found in sweeps.items() if kind != "cpu")
    finding = (
        f"On this processor {best.tiles} tiles change the FFN's speed by {gain.value:+.1f} % ({gain.low:+.1f} to "
        f"{gain.high:+.1f}; the number of tiles was chosen on other repeats) and cut its peak memory from "
        f"{timings[0].peak_mib:.0f} to {best.peak_mib:.0f} MiB; the result moves by at most "
        f"{max(r.max_error for r in timings):.0e}. {others or 'No GPU was tried'}. Published: {claim('C25')['value']} "
        f"% end to end on the phone ({claim('C25')['evidence']})."
    )
    data = pd.DataFrame([
        {"device": kind, "tiles": r.tiles, "seconds": r.seconds, "fastest": min(r.repeats), "hidden_mib": r.hidden_mib,
         "peak_mib": r.peak_mib, "max_error": r.max_error}
        for kind, sweep in sweeps.items() for r in sweep
    ])  # fmt: skip
    fig, (time, memory) = plt.subplots(1, 2, figsize=(7.5, 3.2))
    cpu = data[data["device"] == "cpu"].set_index("tiles")
    time.plot(1e3 * cpu["seconds"], "o-", label="median")
    time.plot(1e3 * cpu["fastest"], "o--", color=PALETTE["sky"], label="fastest")
    time.set(ylabel="time of one FFN (ms)")
    memory.plot(cpu["peak_mib"], "s-", color=PALETTE["vermillion"], label="peak (measured)")
    memory.plot(cpu["hidden_mib"], "s--", color=PALETTE["orange"], label="hidden activation (derived)")
    memory.set(ylabel="MiB")
    for ax in (time, memory):
        ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
        ax.set_xscale("log", base=2)
        ax.set_xticks(cpu.index, cpu.index)
        ax.set_xlabel("tiles over the hidden axis")
        ax.legend()
    return FigureResult(fig, finding, data=data), gain


def working_set(rows: Sequence[Mapping[str, float]], ffn_share: float) -> TableResult:
    """`tiled.working_set`, with the FFN's share of a pass."""
    table = pd.DataFrame(rows)
    spill = table["DRAM time saved at most (%)"].iloc[0]
    finding = (
        f"Untiled, {table['hidden activation (MB)'].iloc[0]:.1f} MB must stay on the chip. Writing and reading them "
        f"through memory would cost {spill:.1f} % of the FFN's time, {spill * ffn_share:.1f} % of a pass; published "
        f"are {claim('C25')['value']} % end to end."
    )
    return TableResult(table, finding, "derived")


def packages(verified: Sequence[Verification], unsafe: pd.DataFrame) -> TableResult:
    """The gates of the saved packages, and what the numerics gate names."""
    table = pd.DataFrame([v.as_dict() for v in verified])
    named = f"names {', '.join(sorted(set(unsafe['form'])))}" if len(unsafe) else "finds no unsafe form"
    finding = (
        f"{len(table)} saved packages, executed from disk: largest relative error {table['fp32 error'].max():.1e} in "
        f"float32 and {table['fp16 error'].max():.1e} with float16 storage; {(table['gates'] == 'passed').sum()} pass "
        f"the gates. The gate on float16 numerics {named}."
    )
    return TableResult(table, finding)


def weights(cost: pd.DataFrame, gain: Interval, average: float, expected_db: float) -> TableResult:
    """`app.weight_cost`, with rows 16, 4 and "mixed", and what bits by layer `gain` over uniform ones, in decibels.

    The choice by layer has so many bits a weight on `average`; `expected_db` is from `mixed_bits.expected_gain_db`.
    """
    by_bits = cost.set_index("bits")
    full, mixed, uniform = (by_bits.loc[b] for b in (16, "mixed", 4))
    nearer = mixed["PSNR to torch, median (dB)"] - uniform["PSNR to torch, median (dB)"]
    lost = full["all attributes right"] - mixed["all attributes right"]
    reached = "reach" if nearer >= MIXED_BAR_DB and lost <= MIXED_BAR_ACCURACY else "miss"
    finding = (
        f"Through float16 packages the worst of {int(full['clips'])} clips is {full['worst clip (dB)']:.0f} dB from "
        f"torch (gate: 35). At the bytes of uniform 4 bits, bits by layer ({average:.2f} on average, "
        f"{mixed['MB']:.1f} against {uniform['MB']:.1f} MB) are {nearer:+.1f} dB nearer in the median (mean "
        f"{gain.value:+.1f}, {gain.low:+.1f} to {gain.high:+.1f}). They lose {lost:.2f} of the judge's accuracy "
        f"against 16 bits: they {reached} the bars (3 dB, .02). The layers' damages, each alone and added up, "
        f"predict {expected_db:+.1f} dB."
    )
    return TableResult(cost, finding)


def runtimes(table: pd.DataFrame, speeds: Mapping[str, Interval], threads: int) -> TableResult:
    """`second_runtime.compare`, with the device model's milliseconds for torch's operations."""
    line = table.set_index("runtime")
    full = line.loc["ONNX Runtime, float32"]
    predicted, measured = line.loc["torch, float32", ["predicted ms", "ms a clip"]]
    finding = (
        f"The app as ONNX files is {full['error']:.0e} from torch in float32 (gate 1e-04) and makes "
        f"{full['frames/s']:.1f} frames/s with {threads} thread(s), {speeds['float32'].value:.2f} times torch's speed "
        f"({speeds['float32'].low:.2f} to {speeds['float32'].high:.2f}); int8 {speeds['int8'].value:.2f} times "
        f"({speeds['int8'].low:.2f} to {speeds['int8'].high:.2f}), {line.loc['ONNX Runtime, int8', 'error']:.0e} off. "
        f"The device model says {predicted:.0f} ms for torch, measured are {measured:.0f}."
    )
    return TableResult(table, finding)


def table_of_models(profile_server: DiTConfig, profile_mobile: DiTConfig, grid: Grid, mini: Grid, text: int) -> dict:
    """The four models that `models` shows: paper scale and miniature, server and mobile."""
    return {
        "SERVER (reconstructed)": (SERVER, grid, 77), "MOBILE (reconstructed)": (MOBILE, grid, 77),
        "miniature server": (profile_server, mini, text), "miniature mobile": (profile_mobile, mini, text),
    }  # fmt: skip
