"""Tables of the device model: every device with its evidence, and the decoder that a frame rate requires.

Paper: Table 1 (frames/s on A100 and iPhone). Predictions for Neural Engines carry the fitted efficiency and its
interval; other NPUs borrow it, at a peak that is `assumed`; server GPUs take the efficiency that the paper's own A100
speed implies, and their range is the decoder's. Every device also gets the upper bound that its bandwidth sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, clip_flops, dit_flops, dit_params
from mobivid_core.phone.devices import NEURAL_ENGINE, NPU, Device, load_devices, with_assumed_peak
from mobivid_core.phone.efficiency import Efficiency, fps_interval
from mobivid_core.phone.roofline import Stage, clip_seconds, clip_stages, required_efficiency, seconds_by_kind


def prediction_table(
    stages: Sequence[Stage], efficiency: Efficiency, frames: int, *, decoder_tflop: tuple[float, float],
    weights_gb: float, gpu_efficiency: float,
) -> pd.DataFrame:  # fmt: skip
    """Frames/s of every device for one clip, whose `stages` leave out the decoder.

    `efficiency` was fitted on Apple's Neural Engines, `gpu_efficiency` is implied by the paper's own A100 speed;
    `weights_gb` (1e9 bytes) are the transformer's, compared with the device's memory.
    """
    rows, traffic = [], sum(s.repeats * s.gigabytes for s in stages)
    for listed in load_devices():
        device = with_assumed_peak(listed)
        row = {"device": device.name, "chip": device.chip, "engine": device.engine}
        if device.tflops and device.engine in (NEURAL_ENGINE, NPU):
            middle, low, high = fps_interval(stages, device, efficiency, frames, decoder_tflop=decoder_tflop)
            row |= {"frames/s": middle, "low": low, "high": high}
        elif device.tflops and device.engine == "GPU" and device.evidence == "vendor":
            ends = [example_rate(stages, tflop, device, gpu_efficiency, frames) for tflop in decoder_tflop]
            row |= {"frames/s": math.sqrt(ends[0] * ends[1]), "low": min(ends), "high": max(ends)}
        row["at most (bandwidth)"] = frames * device.gb_s / traffic if device.gb_s else math.nan
        row["fp16 TFLOP/s"], row["GB/s"] = device.tflops, device.gb_s
        row["weights / RAM"] = weights_gb / device.ram_gb if device.ram_gb else None
        row["device evidence"] = device.evidence
        rows.append(row)
    return pd.DataFrame(rows)


def stage_table(stages: Sequence[Stage], devices: Sequence[Device], efficiency: Efficiency) -> pd.DataFrame:
    """Seconds a clip of each layer kind at the typical efficiency, one row a kind and one column a device.

    The total is also given at both ends of the efficiency's interval.
    """
    low, high = efficiency.interval()
    columns = {}
    for device in devices:
        seconds = seconds_by_kind(stages, device, efficiency.typical)
        ends = {f"in all, {name}": clip_seconds(stages, device, e) for name, e in (("fastest", high), ("slowest", low))}
        columns[f"{device.chip} (s)"] = seconds | {"in all": sum(seconds.values())} | ends
    return pd.DataFrame(columns).rename_axis("stage")


def decoder_sweep(
    stages: Sequence[Stage], devices: Sequence[Device], frames: int, fps: float, tflop: np.ndarray
) -> pd.DataFrame:
    """Efficiency that `fps` needs against the decoder's cost, one column a device."""
    work = [[*stages, Stage("decoder", float(t), 0.0)] for t in tflop]
    needed = {f"{d.chip} {d.engine}": [required_efficiency(w, d, frames, fps) for w in work] for d in devices}
    return pd.DataFrame({"decoder TFLOP": tflop, **needed})


def cost_ladder(
    server: DiTConfig, mobile: DiTConfig, grid: Grid, text_tokens: int, steps: tuple[int, int]
) -> pd.DataFrame:
    """From the server model's clip to the mobile one's: what guidance, `steps` (of the two) and pruning each save."""
    server_pass, mobile_pass = (dit_flops(c, grid, text_tokens)["total"] for c in (server, mobile))
    many, few = steps
    ladder = [
        (f"server, {many} steps, guidance", server, clip_flops(server_pass, steps=many, guidance=True)),
        ("without guidance", server, clip_flops(server_pass, steps=many, guidance=False)),
        (f"in {few} steps", server, clip_flops(server_pass, steps=few, guidance=False)),
        ("pruned (mobile)", mobile, clip_flops(mobile_pass, steps=few, guidance=False)),
    ]
    rows = [(name, dit_params(sizes)["total"] / 1e6, flops / 1e12) for name, sizes, flops in ladder]
    table = pd.DataFrame(rows, columns=["model", "params (M)", "TFLOP a clip"])
    table["cheaper than the row above"] = table["TFLOP a clip"].shift() / table["TFLOP a clip"]
    table["cheaper in all"] = table["TFLOP a clip"].iloc[0] / table["TFLOP a clip"]
    return table


def table_one(
    models: Sequence[tuple[str, str, float, int]], stages: Mapping[str, Sequence[Stage]], *, frames: int,
    published: Mapping[str, Mapping[str, float]], decoder_tflop: tuple[float, float], efficiency: Efficiency,
    gpu: Device, gpu_efficiency: float, phone: Device,
) -> pd.DataFrame:  # fmt: skip
    """The paper's Table 1 rebuilt: published beside predicted, on its server GPU and its phone.

    Args:
        models: (name, evidence of its sizes, parameters, passes a clip) in the paper's order.
        stages: Name -> operations of one clip of `frames` frames, without decoder.
        published: Name -> "params (B)", "A100 frames/s", "iPhone frames/s"; a missing one stays blank.
        decoder_tflop: Range of the decoder's cost on the phone, whose Neural Engine reaches `efficiency`.
    """
    rows = []
    for name, evidence, params, passes in models:
        work, known = stages[name], published.get(name, {})
        middle, low, high = fps_interval(work, phone, efficiency, frames, decoder_tflop=decoder_tflop)
        rows.append({
            "model": name, "published params (B)": known.get("params (B)"), "counted params (B)": params / 1e9,
            "passes": passes, "TFLOP a clip": sum(s.repeats * s.tflop for s in work),
            "A100 published": known.get("A100 frames/s"),
            "A100 predicted": frames / clip_seconds(work, gpu, gpu_efficiency),
            "iPhone published": known.get("iPhone frames/s"), "iPhone predicted": middle, "low": low, "high": high,
            "sizes": evidence,
        })  # fmt: skip
    return pd.DataFrame(rows)


def speed_surface(
    cfg: DiTConfig, device: Device, efficiency: float, *, grids: Mapping[str, tuple[Grid, int]], steps: Sequence[int],
    decoder_tflop_per_token: float,
) -> pd.DataFrame:  # fmt: skip
    """Frames/s over clip sizes, name -> (latent grid, frames), and step counts: the static twin of the sliders.

    The decoder's cost grows with the latent tokens.
    """

    def rate(grid: Grid, frames: int, n: int) -> float:
        decoder = decoder_tflop_per_token * math.prod(grid)
        return example_rate(clip_stages(cfg, grid, steps=n), decoder, device, efficiency, frames)

    table = {f"{n} steps": {name: rate(*clip, n) for name, clip in grids.items()} for n in steps}
    return pd.DataFrame(table).rename_axis("clip")


def example_rate(
    stages: Sequence[Stage], decoder_tflop: float, device: Device, efficiency: float, frames: int
) -> float:
    """Frames/s at one efficiency and decoder cost: the widget's number."""
    return frames / clip_seconds([*stages, Stage("decoder", decoder_tflop, 0.0)], device, efficiency)
