"""Tables made with the device model: every device beside its evidence, and what a frame rate demands of the decoder.

Paper: Table 1 (frames/s on A100 and iPhone). Predictions for Neural Engines only carry the fitted efficiency; for GPUs
the published speed is turned round into the efficiency it implies, and a device without a known peak gets the upper
bound that its memory bandwidth sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mobivid_core.deploy.counts import Grid, clip_flops, dit_flops, dit_params
from mobivid_core.deploy.devices import (
    NEURAL_ENGINE,
    Device,
    Efficiency,
    Stage,
    clip_seconds,
    fps_interval,
    load_devices,
    required_efficiency,
)  # fmt: skip
from mobivid_core.models.config import DiTConfig


def prediction_table(
    stages: Sequence[Stage],
    efficiency: Efficiency,
    frames: int,
    *,
    decoder_tflop: tuple[float, float],
    weights_gb: float,
) -> pd.DataFrame:
    """Frames/s of every device for one clip.

    Args:
        stages: Stages without decoder.
        efficiency: Fitted on Neural Engines.
        frames: Frames of a clip.
        decoder_tflop: Range of the unknown decoder's cost.
        weights_gb: Bytes of the transformer's weights / 1e9, compared with the device's memory.
    """
    rows = []
    for device in load_devices():
        row = {"device": device.name, "chip": device.chip, "engine": device.engine}
        if device.engine == NEURAL_ENGINE and device.tflops:
            middle, low, high = fps_interval(stages, device, efficiency, frames, decoder_tflop=decoder_tflop)
            row |= {"frames/s": middle, "low": low, "high": high}
        memory_bound = sum(s.repeats * s.gigabytes for s in stages) / device.gb_s if device.gb_s else math.nan
        row["at most (bandwidth)"] = frames / memory_bound
        row["fp16 TFLOP/s"], row["GB/s"] = device.tflops, device.gb_s
        row["weights / RAM"] = weights_gb / device.ram_gb if device.ram_gb else None
        row["device evidence"] = device.evidence
        rows.append(row)
    return pd.DataFrame(rows)


def decoder_sweep(
    stages: Sequence[Stage], devices: Sequence[Device], frames: int, fps: float, tflop: np.ndarray
) -> pd.DataFrame:
    """Efficiency that `fps` needs against the decoder's cost, one column a device."""
    table = {"decoder TFLOP": tflop}
    for device in devices:
        label = f"{device.chip} {device.engine}"
        table[label] = [
            required_efficiency([*stages, Stage("decoder", float(t), 0.0)], device, frames, fps) for t in tflop
        ]
    return pd.DataFrame(table)


def cost_ladder(
    server: DiTConfig, mobile: DiTConfig, grid: Grid, text_tokens: int, steps: tuple[int, int]
) -> pd.DataFrame:
    """From the server model's clip to the mobile one's: what guidance, steps and pruning each save.

    Args:
        server: Teacher sizes.
        mobile: Student sizes.
        grid: Latent grid.
        text_tokens: Text length.
        steps: Sampling steps of the two.
    """
    server_pass, mobile_pass = (dit_flops(c, grid, text_tokens)["total"] for c in (server, mobile))
    many, few = steps
    ladder = [
        (f"server, {many} steps, guidance", server, clip_flops(server_pass, steps=many, guidance=True)),
        ("without guidance", server, clip_flops(server_pass, steps=many, guidance=False)),
        (f"in {few} steps", server, clip_flops(server_pass, steps=few, guidance=False)),
        ("pruned (mobile)", mobile, clip_flops(mobile_pass, steps=few, guidance=False)),
    ]
    table = pd.DataFrame(
        {
            "model": [name for name, _, _ in ladder],
            "params (M)": [dit_params(c)["total"] / 1e6 for _, c, _ in ladder],
            "TFLOP a clip": [flops / 1e12 for _, _, flops in ladder],
        }
    )
    table["cheaper than the row above"] = table["TFLOP a clip"].shift() / table["TFLOP a clip"]
    table["cheaper in all"] = table["TFLOP a clip"].iloc[0] / table["TFLOP a clip"]
    return table


def implied_efficiency(tflop: float, frames: int, fps: float, device: Device) -> float:
    """Share of a device's peak that a published frame rate implies."""
    return tflop * fps / frames / device.tflops if device.tflops else math.nan


def example_rate(
    stages: Sequence[Stage], decoder_tflop: float, device: Device, efficiency: float, frames: int
) -> float:
    """Frames/s at one efficiency and decoder cost: the widget's number."""
    return frames / clip_seconds([*stages, Stage("decoder", decoder_tflop, 0.0)], device, efficiency)
