"""Notebook 06's predictions and verdicts: anchors and their error, every device, what 15 frames/s ask for, Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mobivid_core.measure.intervals import Interval
from mobivid_core.models.config import MOBILE, SERVER
from mobivid_core.models.counts import Grid, LayerCount, dit_params, latent_grid
from mobivid_core.phone import efficiency as anchors
from mobivid_core.phone import predictions, references
from mobivid_core.phone.devices import NPU, Device, find_device
from mobivid_core.phone.efficiency import Efficiency
from mobivid_core.phone.roofline import Stage, clip_stages, required_efficiency, stage_of
from mobivid_core.published import claim, claim_value
from mobivid_core.show.outcome import FigureResult, TableResult
from mobivid_core.show.style import PALETTE


def processor(table: pd.DataFrame, flops_per_s: float, worst: float) -> FigureResult:
    """`cpu_model.compare`: predicted against measured times of this processor."""
    finding = (
        f"FFN, attention and whole block at {table['tokens'].nunique()} sizes on this processor "
        f"({flops_per_s / 1e9:.0f} GFLOP/s): the farthest prediction is off by a factor of {worst:.2f}."
    )
    fig, ax = plt.subplots(figsize=(4.6, 4.2))
    times = table[["predicted ms", "measured ms"]].to_numpy()
    ends = np.array([0.7 * times.min(), 1.4 * times.max()])
    ax.fill_between(ends, ends / 1.3, ends * 1.3, color=PALETTE["sky"], alpha=0.2, label="within a factor of 1.3")
    ax.plot(ends, ends, color=PALETTE["black"], linewidth=1)
    for (part, rows), marker in zip(table.groupby("part", sort=False), "os^", strict=False):
        ax.plot(rows["measured ms"], rows["predicted ms"], marker, markersize=8, label=part)
    ax.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="predicted (ms)", xlim=ends, ylim=ends)
    ax.legend()
    return FigureResult(fig, finding, data=table)


def calibration() -> FigureResult:
    """The anchors with the fit's interval."""
    rows, fit = anchors.calibration_rows(), anchors.fit_efficiency()
    low, high = fit.interval()
    means = rows.groupby("workload", sort=False)["efficiency"].mean()
    reached = ", ".join(f"{100 * share:.0f} % ({name})" for name, share in means.items())
    finding = (
        f"Share of the nominal peak by workload: {reached}. One more workload on one more chip: "
        f"{100 * fit.typical:.0f} %, 80 % interval {100 * low:.0f} to {100 * high:.0f} %, from {fit.workloads} "
        f"workloads and {fit.chips} chips."
    )
    columns = ["chip", "workload", "iterations_per_s", "fp16_tflops", "efficiency", "evidence"]
    fig, ax = plt.subplots(figsize=(7, 3.2))
    for (workload, part), marker in zip(rows.groupby("workload", sort=False), "os^v", strict=False):
        ax.plot(part["chip"], 100 * part["efficiency"], marker, markersize=8, label=workload)
    ax.axhspan(100 * low, 100 * high, color=PALETTE["sky"], alpha=0.2, label="80 % interval for one more")
    ax.axhline(100 * fit.typical, color=PALETTE["black"], linewidth=1, label="typical")
    ax.set(ylabel="share of the nominal peak (%)", ylim=(0, None))
    ax.legend(ncols=2, loc="lower center")
    return FigureResult(fig, finding, "derived", data=rows[columns])


def left_out(table: pd.DataFrame) -> TableResult:
    """`efficiency.left_out_errors`: what the model misses when a chip, a workload or the transformer is left out."""
    line = table.set_index("left out")
    chip, workload = line.loc["each chip in turn"], line.loc["each workload in turn"]
    held = anchors.leave_one_out("workload").set_index("chip").loc["A18 Pro"]
    why = "" if held["covers"] else ": two kinds of image U-Net do not say how slow a transformer may be"
    verb = "covers" if held["covers"] else "misses"
    finding = (
        f"Median error {100 * chip['median error']:.0f} % with each chip left out ({chip['n']:.0f} chips), "
        f"{100 * workload['median error']:.0f} % with each workload ({workload['n']:.0f}), "
        f"{100 * workload.iloc[-1]:.0f} % of the anchors inside. Fitted on the two U-Nets alone, the interval "
        f"{100 * held['low']:.1f} to {100 * held['high']:.1f} % {verb} the transformer's "
        f"{100 * held['efficiency']:.1f} %{why}."
    )
    return TableResult(table, finding, "derived")


def cases(table: pd.DataFrame, speed: Interval) -> TableResult:
    """`efficiency.fps_cases`: the phone's speed for each figure of its peak."""
    nominal, other, own = (row for _, row in table.iterrows())
    finding = (
        f"A18 Pro: {speed.value:.0f} frames/s at {nominal['TFLOP/s']:g} TFLOP/s, {other['frames/s']:.0f} at "
        f"{other['TFLOP/s']:g}, {own['frames/s']:.0f} if the video transformer runs as fast as the image transformer "
        f"that was measured on this chip; {speed.low:.0f} to {speed.high:.0f} holds both peaks' 80 % intervals."
    )
    return TableResult(table, finding, "derived")


def devices_table(table: pd.DataFrame, server_share: float) -> TableResult:
    """`predictions.prediction_table`."""
    known = table[(table["engine"] == NPU) & table["frames/s"].notna()]
    android = ", ".join(f"{row['frames/s']:.0f} on {row['chip']}" for _, row in known.iterrows())
    finding = (
        f"Android's NPUs: {android} frames/s, from an assumed float16 peak (half of the advertised integer one) and a "
        f"borrowed efficiency; a blank peak stays blank. Server GPUs stand on the {100 * server_share:.0f} % that the "
        "paper's A100 speed implies; a phone's GPU only gets its bandwidth's bound."
    )
    return TableResult(table, finding, "derived", "Table 1")


def rates(table: pd.DataFrame, speed: Interval) -> FigureResult:
    """Frames/s of every device beside the published number."""
    published = claim_value("C01")
    place = "inside" if speed.low <= published <= speed.high else "outside"
    finding = (
        f"A18 Pro: {speed.value:.1f} frames/s predicted, {speed.low:.1f} to {speed.high:.1f} over both peaks; the "
        f"published {published:.0f} lies {place} an interval whose ends are {speed.high / speed.low:.0f}-fold apart."
    )
    known = table[table["engine"] != "GPU"].dropna(subset=["frames/s"]).reset_index(drop=True)
    fig, ax = plt.subplots(figsize=(7, 0.42 * len(known) + 1.4))
    errors = [known["frames/s"] - known["low"], known["high"] - known["frames/s"]]
    told, claimed = "predicted, 80 % interval (derived)", "published for iPhone 16 Pro Max (paper)"
    ax.errorbar(known["frames/s"], known.index, xerr=errors, fmt="o", capsize=4, label=told)
    ax.axvline(published, color=PALETTE["vermillion"], linestyle="--", label=claimed)
    ax.set_yticks(known.index, [f"{r.device} ({r.chip})" for r in known.itertuples()])
    ax.set(xlabel="frames/s", xlim=(0, None))
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0))
    return FigureResult(fig, finding, "derived", "Table 1")


def demand(
    stages: Sequence[Stage], phone: Device, frames: int, light: LayerCount, ltx: LayerCount, fit: Efficiency
) -> tuple[FigureResult, float]:
    """Efficiency that the published speed needs against the decoder's cost, and its value with the light decoder."""
    published, gpu = claim_value("C01"), find_device("A18 Pro", "GPU")
    sweep = predictions.decoder_sweep(stages, [phone, gpu], frames, published, np.linspace(0, 10, 41))
    needed, with_ltx = (
        required_efficiency([*stages, stage_of("decoder", c)], phone, frames, published) for c in (light, ltx)
    )
    own = anchors.calibration_rows().set_index("chip").loc[phone.chip, "efficiency"]
    finding = (
        f"With a light decoder the claim needs {100 * needed:.0f} % of the Neural Engine's nominal peak, with "
        f"LTX-Video's {100 * with_ltx:.0f} %; the U-Nets reach more, the transformer on this chip {100 * own:.0f} %. "
        f"The phone's GPU would need {100 * sweep['A18 Pro GPU'].iloc[0]:.0f} % of its own even with a free decoder."
    )
    marks = {"free": 0, "light": light.flops / 1e12, "LTX": ltx.flops / 1e12}
    fig, ax = plt.subplots(figsize=(7, 3.6))
    low, high = fit.interval()
    ax.axhspan(100 * low, 100 * high, color=PALETTE["sky"], alpha=0.2, label="reached by published models (80 %)")
    for column in sweep.columns[1:]:
        ax.plot(sweep["decoder TFLOP"], 100 * sweep[column], label=column)
    for name, tflop in marks.items():
        ax.axvline(tflop, color="0.4", linewidth=1, linestyle=":")
        ax.text(tflop, 1.01, name, ha="center", va="bottom", fontsize=8, transform=ax.get_xaxis_transform())
    ax.axhline(100, color=PALETTE["black"], linewidth=1, label="the whole peak")
    ax.set(xlabel="decoder's cost (TFLOP a clip)", ylabel="efficiency needed (% of peak)", yscale="log", ylim=(10, 400))
    ax.set_yticks([10, 20, 50, 100, 200, 400], ["10", "20", "50", "100", "200", "400"])
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return FigureResult(fig, finding, "derived", "Table 1", sweep), needed


def table_one(
    grid: Grid, frames: int, steps: tuple[int, int], size: tuple[int, int], decoder: tuple[float, float],
    server_share: float, fit: Efficiency,
) -> TableResult:  # fmt: skip
    """The paper's Table 1 rebuilt; `size` is width and height, `steps` those of server and mobile model."""
    wan = references.wan_transformer_counts(latent_grid(frames, size[1], size[0], (4, 8, 8)))
    ltx, many = references.ltx_transformer_counts(grid), 2 * steps[0]
    work = {name: [stage_of("transformer", c, many)] for name, c in (("Wan2.1", wan), ("LTX", ltx))}
    work["Ours-Server"] = clip_stages(SERVER, grid, text_tokens=77, steps=steps[0], guidance=True)
    work["Ours-Mobile"] = clip_stages(MOBILE, grid, text_tokens=77, steps=steps[1])
    # name, evidence of its sizes, parameters, passes; then the claims of its parameters and of its speed
    models = [
        ("Wan2.1", "assumed", wan.params, many, "C07", "A100", "C09"),
        ("LTX", "assumed", ltx.params, many, "C10", "A100", "C12"),
        ("Ours-Server", "derived", dit_params(SERVER)["total"], many, "C04", "A100", "C06"),
        ("Ours-Mobile", "derived", dit_params(MOBILE)["total"], steps[1], "C13", "iPhone", "C01"),
    ]
    known = {
        name: {"params (B)": claim_value(params), f"{device} frames/s": claim_value(rate)}
        for name, *_, params, device, rate in models
    }
    table = predictions.table_one(
        [model[:4] for model in models], work, frames=frames, published=known, decoder_tflop=decoder, efficiency=fit,
        gpu=find_device("A100", "GPU"), gpu_efficiency=server_share, phone=find_device("A18 Pro"),
    )  # fmt: skip
    predicted = table.set_index("model")["A100 predicted"]
    finding = (
        f"The A100 column rests on the server row; it then gives LTX {predicted['LTX']:.1f} frames/s (published "
        f"{claim('C12')['value']}) and Wan2.1 {predicted['Wan2.1']:.1f} ({claim('C09')['value']})."
    )
    return TableResult(table, finding, "derived", "Table 1")


def stages_of_devices(stages: Sequence[Stage], decoder: LayerCount, fit: Efficiency) -> TableResult:
    """Seconds a clip by layer kind on an old phone, a newer one, the paper's, and a laptop."""
    shown = [find_device(chip) for chip in ("A14", "A16", "A18 Pro", "M4")]
    table = predictions.stage_table([*stages, stage_of("decoder", decoder)], shown, fit)
    ratio = table["A14 (s)"]["in all"] / table["A18 Pro (s)"]["in all"]
    finding = (
        f"Seconds a clip by layer kind, with the light decoder: an A14 needs {ratio:.1f} times as long as an A18 Pro."
    )
    return TableResult(table, finding, "derived")


def surface(phone: Device, fit: Efficiency, decoder_tflop_per_token: float) -> TableResult:
    """Frames/s over clip sizes and steps: the static twin of the sliders."""
    sizes = ((49, 512, 384), (49, 768, 512), (121, 512, 384), (121, 1280, 704))
    grids = {f"{n} x {w} x {h}": (latent_grid(n, h, w), n) for n, w, h in sizes}
    table = predictions.speed_surface(
        MOBILE, phone, fit.typical, grids=grids, steps=(1, 2, 4, 8, 40), decoder_tflop_per_token=decoder_tflop_per_token
    )
    finding = (
        f"A18 Pro at the typical efficiency: four steps at the paper's size give {table['4 steps'].iloc[0]:.0f} "
        f"frames/s, 40 give {table['40 steps'].iloc[0]:.1f}; four steps of 1280 x 704 give "
        f"{table['4 steps'].iloc[3]:.1f}."
    )
    return TableResult(table, finding, "derived")


def parts(rows: Mapping[str, tuple[LayerCount, int, str]]) -> TableResult:
    """What a clip consists of: part -> (counts, runs a clip, evidence)."""
    table = pd.DataFrame([
        {"part": name, "params (M)": c.params / 1e6, "TFLOP": c.flops / 1e12, "fp16 weights (MB)": c.weight_bytes / 1e6,
         "runs a clip": n, "evidence": e} for name, (c, n, e) in rows.items()
    ])  # fmt: skip
    by = table.set_index("part")["TFLOP"]
    finding = (
        f"Four mobile passes cost {4 * by.filter(like='MOBILE').iloc[0]:.2f} TFLOP; the decoder may add "
        f"{' or '.join(f'{x:.1f}' for x in by.filter(like='decoder'))}."
    )
    return TableResult(table, finding, "derived")


def implied_share(grid: Grid, frames: int, steps: int) -> float:
    """Share of an A100's peak that the paper's server speed implies."""
    work = sum(s.repeats * s.tflop for s in clip_stages(SERVER, grid, text_tokens=77, steps=steps, guidance=True))
    return work * claim_value("C06") / frames / find_device("A100", "GPU").tflops
