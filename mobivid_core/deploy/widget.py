"""Sliders over the device model, for JupyterLab; notebooks show static figures of the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mobivid_core.deploy.devices import Device, Efficiency, Stage
from mobivid_core.deploy.predictions import example_rate

if TYPE_CHECKING:
    from ipywidgets import Widget


def explore(
    stages: Sequence[Stage], device: Device, efficiency: Efficiency, *, frames: int, decoder_tflop: float
) -> Widget:
    """Frames/s under sliders for efficiency and decoder cost.

    Args:
        stages: Stages of a clip without decoder.
        device: With a known peak.
        efficiency: Gives the slider's start.
        frames: Frames of a clip.
        decoder_tflop: The decoder slider's start.
    """
    import ipywidgets as widgets

    share = widgets.FloatSlider(value=efficiency.typical, min=0.05, max=1.0, step=0.01, description="efficiency")
    decoder = widgets.FloatSlider(value=decoder_tflop, min=0.0, max=10.0, step=0.1, description="decoder")
    shown = widgets.HTML()

    def update(_: object = None) -> None:
        rate = example_rate(stages, decoder.value, device, share.value, frames)
        shown.value = (
            f"<b>{rate:.1f} frames/s</b> on {device.chip} {device.engine}: {100 * share.value:.0f} % of "
            f"{device.tflops:g} TFLOP/s, decoder of {decoder.value:.1f} TFLOP (derived)"
        )

    for slider in (share, decoder):
        slider.observe(update, names="value")
    update()
    return widgets.VBox([share, decoder, shown])
