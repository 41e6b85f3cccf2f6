"""Notebook 06's predictions and verdicts: anchors and their error, every device, what 15 frames/s ask for, Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from mobivid_core.show import phone_figures as plots
from mobivid_core.show.outcome import FigureResult, TableResult


def processor(table: pd.DataFrame, flops_per_s: float, worst: float) -> FigureResult:
    """`cpu_model.compare`: predicted against measured times of this processor."""
    finding = (
        f"FFN, attention and whole block at {table['tokens'].nunique()} sizes on this processor "
        f"({flops_per_s / 1e9:.0f} "
        f"GFLOP/s): the farthest prediction is off by a factor of {worst:.2f}."
    )
    return FigureResult(plots.predicted_against_measured(table, 1.3), finding, "measured", data=table)


def calibration() -> FigureResult:
    """The anchors with the fit's interval."""
    rows, fit = anchors.calibration_rows(), anchors.fit_efficiency()
    low, high = fit.interval()
    means = rows.groupby("workload", sort=False)["efficiency"].mean()
    reached = ", ".join(f"{100 * share:.0f} % ({name})" for name, share in means.items())
    finding = (
        f"Share of the nominal peak by workload: {reached}. One more workload on one more chip: "
        f"{100 * fit.typical:.0f} %, "
        f"80 % interval {100 * low:.0f} to {100 * high:.0f} %, from {fit.workloads} workloads and {fit.chips} chips."
    )
    columns = ["chip", "workload", "iterations_per_s", "fp16_tflops", "efficiency", "evidence"]
    return FigureResult(plots.calibration(rows, fit), finding, "derived", data=rows[columns])


def left_out(table: pd.DataFrame) -> TableResult:
    """`efficiency.left_out_errors`: what the model misses when a chip, a workload or the transformer is left out."""
    line = table.set_index("left out")
    inside = table.columns[-1]
    chip, workload = line.loc["each chip in turn"], line.loc["each workload in turn"]
    held = anchors.leave_one_out("workload").set_index("chip").loc["A18 Pro"]
    verb = "covers" if held["covers"] else "misses"
    finding = (
        f"Median error {100 * chip['median error']:.0f} % with each chip left out ({chip['n']:.0f} chips), "
        f"{100 * workload['median error']:.0f} % with each workload ({workload['n']:.0f}), "
        f"{100 * workload[inside]:.0f} % of the "
        f"anchors inside. Fitted on the two U-Nets alone, the interval {100 * held['low']:.1f} to "
        f"{100 * held['high']:.1f} % "
        f"{verb} the transformer's {100 * held['efficiency']:.1f} %: it is slower than image U-Nets let one expect."
    )
    return TableResult(table, finding, "derived")


def cases(table: pd.DataFrame, speed: Interval) -> TableResult:
    """`efficiency.fps_cases`: the phone's speed for each figure of its peak."""
    nominal, other, own = (row for _, row in table.iterrows())
    finding = (
        f"A18 Pro: {speed.value:.0f} frames/s at {nominal['TFLOP/s']:g} TFLOP/s, {other['frames/s']:.0f} at "
        f"{other['TFLOP/s']:g}, {own['frames/s']:.0f} if the video transformer runs as fast as the image "
        "transformer that was "
        f"measured on this chip; {speed.low:.0f} to {speed.high:.0f} holds both peaks' 80 % intervals."
    )
    return TableResult(table, finding, "derived")


def devices_table(table: pd.DataFrame, server_share: float) -> TableResult:
    """`predictions.prediction_table`."""
    known = table[(table["engine"] == NPU) & table["frames/s"].notna()]
    android = ", ".join(f"{row['frames/s']:.0f} on {row['chip']}" for _, row in known.iterrows())
    finding = (
        f"Android's NPUs: {android} frames/s, from an assumed float16 peak (half of the advertised integer one) and "
        "a borrowed "
        f"efficiency; a blank peak stays blank. Server GPUs stand on the {100 * server_share:.0f} % that the "
        "paper's A100 speed "
        "implies; a phone's GPU only gets its bandwidth's bound."
    )
    return TableResult(table, finding, "derived", "Table 1")


def rates(table: pd.DataFrame, speed: Interval) -> FigureResult:
    """Frames/s of every device beside the published number."""
    published = claim_value("C01")
    place = "inside" if speed.low <= published <= speed.high else "outside"
    finding = (
        f"A18 Pro: {speed.value:.1f} frames/s predicted, {speed.low:.1f} to {speed.high:.1f} over both peaks; the "
        "published "
        f"{published:.0f} lies {place}, as almost any speed would: three workloads cannot decide."
    )
    drawn = plots.predicted_rates(table[table["engine"] != "GPU"], published)
    return FigureResult(drawn, finding, "derived", "Table 1")


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
        "LTX-Video's "
        f"{100 * with_ltx:.0f} %; the U-Nets reach more, the transformer on this chip {100 * own:.0f} %. The "
        "phone's GPU would need "
        f"{100 * sweep['A18 Pro GPU'].iloc[0]:.0f} % of its own even with a free decoder."
    )
    marks = {"free": 0, "light": light.flops / 1e12, "LTX": ltx.flops / 1e12}
    return FigureResult(plots.needed_efficiency(sweep, fit, marks), finding, "derived", "Table 1", sweep), needed


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
    rows = [("Wan2.1", "assumed", wan.params, many), ("LTX", "assumed", ltx.params, many),
            ("Ours-Server", "derived", dit_params(SERVER)["total"], many),
            ("Ours-Mobile", "derived", dit_params(MOBILE)["total"], steps[1])]  # fmt: skip
    known = {
        name: {"params (B)": claim_value(params), column: claim_value(rate)}
        for name, params, column, rate in (
            ("Wan2.1", "C07", "A100 frames/s", "C09"), ("LTX", "C10", "A100 frames/s", "C12"),
            ("Ours-Server", "C04", "A100 frames/s", "C06"), ("Ours-Mobile", "C13", "iPhone frames/s", "C01"),
        )
    }  # fmt: skip
    table = predictions.table_one(
        rows, work, frames=frames, published=known, decoder_tflop=decoder, efficiency=fit,
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
    sizes = {
        (w, h, n): latent_grid(n, h, w)
        for w, h, n in ((512, 384, 49), (768, 512, 49), (512, 384, 121), (1280, 704, 121))
    }
    grids = {f"{n} x {w} x {h}": (grid, n) for (w, h, n), grid in sizes.items()}
    table = predictions.speed_surface(
        MOBILE, phone, fit.typical, grids=grids, steps=(1, 2, 4, 8, 40), decoder_tflop_per_token=decoder_tflop_per_token
    )
    finding = (
        f"A18 Pro at the typical efficiency: four steps at the paper's size give {table['4 steps'].iloc[0]:.0f} "
        "frames/s, 40 "
        f"give {table['40 steps'].iloc[0]:.1f}; four steps of 1280 x 704 give {table['4 steps'].iloc[3]:.1f}."
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
    return predictions.implied_efficiency(work, frames, claim_value("C06"), find_device("A100", "GPU"))
