"""Sliders over the device model, for JupyterLab; notebooks show static tables and figures of the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import latent_grid
from mobivid_core.phone.devices import Device
from mobivid_core.phone.efficiency import Efficiency
from mobivid_core.phone.predictions import example_rate
from mobivid_core.phone.roofline import clip_stages

if TYPE_CHECKING:
    from ipywidgets import Widget

_RATIO = (8, 32, 32)


def rate_of(
    cfg: DiTConfig, device: Device, efficiency: float, *, size: tuple[int, int], frames: int, steps: int,
    decoder_tflop: float, text_tokens: int = 77,
) -> float:  # fmt: skip
    """Frames/s of one setting of the sliders.

    Args:
        cfg: Sizes of the transformer.
        device: With a known peak.
        efficiency: Share of the peak.
        size: Width and height in pixels.
        frames: 1 + a multiple of 8.
        steps: Sampling steps.
        decoder_tflop: Cost of decoding the clip.
        text_tokens: Length of the text sequence.
    """
    grid = latent_grid(frames, size[1], size[0], _RATIO)
    work = clip_stages(cfg, grid, text_tokens=text_tokens, steps=steps)
    return example_rate(work, decoder_tflop, device, efficiency, frames)


def explore(
    cfg: DiTConfig, devices: Sequence[Device], efficiency: Efficiency, *, sizes: Sequence[tuple[int, int]], frames: int,
    decoder_tflop: float,
) -> Widget:  # fmt: skip
    """Frames/s under sliders for device, its bandwidth, efficiency, clip size, steps and decoder cost.

    Args:
        cfg: Sizes of the transformer.
        devices: With known peaks.
        efficiency: Gives the slider's start.
        sizes: Widths and heights to choose from; the first is the paper's.
        frames: Frames of the first clip.
        decoder_tflop: Decoder's cost at the first size; it grows with the clip.
    """
    import ipywidgets as widgets

    # A chip may be there twice: its Neural Engine and its GPU.
    options = [(f"{d.name} ({d.chip}, {d.engine})", d) for d in devices]
    device = widgets.Dropdown(options=options, description="device", layout={"width": "30em"})
    share = widgets.FloatSlider(value=efficiency.typical, min=0.05, max=1.0, step=0.01, description="efficiency")
    bandwidth = widgets.FloatLogSlider(value=1.0, base=2, min=-4, max=2, step=0.25, description="bandwidth x")
    size = widgets.Dropdown(options=[(f"{w} x {h}", (w, h)) for w, h in sizes], description="pixels")
    length = widgets.IntSlider(value=frames, min=9, max=121, step=8, description="frames")
    steps = widgets.IntSlider(value=4, min=1, max=40, description="steps")
    decoder = widgets.FloatSlider(value=decoder_tflop, min=0.0, max=10.0, step=0.1, description="decoder")
    controls, shown = (device, share, bandwidth, size, length, steps, decoder), widgets.HTML()
    cells = sizes[0][0] * sizes[0][1] * frames

    def update(_: object = None) -> None:
        chosen = device.value
        chosen = replace(chosen, gb_s=chosen.gb_s * bandwidth.value)
        grown = decoder.value * size.value[0] * size.value[1] * length.value / cells
        rate = rate_of(
            cfg, chosen, share.value, size=size.value, frames=length.value, steps=steps.value, decoder_tflop=grown
        )
        shown.value = (
            f"<b>{rate:.1f} frames/s</b>: {100 * share.value:.0f} % of {chosen.tflops:g} TFLOP/s, "
            f"{chosen.gb_s:.0f} GB/s, decoder of {grown:.1f} TFLOP (derived)"
        )

    for control in controls:
        control.style.description_width = "7em"  # "bandwidth x" is cut off in the default width
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls, shown])
