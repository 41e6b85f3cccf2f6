"""The device model and the planner as sliders in any browser: numbers from Python, formulas in `live.js`.

The output holds the script and its numbers and fetches nothing, so that readers of the static site have the same
sliders as in JupyterLab. A test compares the script's results with Python's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from IPython.display import HTML

from mobivid_core.models.config import DiTConfig
from mobivid_core.phone.devices import Device
from mobivid_core.phone.efficiency import Efficiency
from mobivid_core.phone.fit import CHUNK_BYTES, WEIGHT_FILE_BYTES

SCRIPT = Path(__file__).with_suffix(".js")
#: Results, then the controls in three columns; in a narrow window the label gets a line of its own.
_STYLE = """
.mobivid-live { max-width: 46rem; }
.mobivid-live .speed { font-weight: bold; margin: .2rem 0; }
.mobivid-live .plan { margin: .2rem 0 .8rem; }
.mobivid-live .controls { display: grid; grid-template-columns: 13rem minmax(0, 1fr) 6rem; gap: .35rem .8rem;
  align-items: center; }
.mobivid-live :is(input, select) { width: 100%; min-width: 0; margin: 0; box-sizing: border-box; font: inherit; }
.mobivid-live select { grid-column: 2 / -1; }
.mobivid-live output { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) {
  .mobivid-live .controls { grid-template-columns: minmax(0, 1fr) 6rem; }
  .mobivid-live :is(label, select) { grid-column: 1 / -1; }
}
"""


def numbers(
    cfg: DiTConfig, devices: Sequence[Device], efficiency: Efficiency, *, sizes: Sequence[tuple[int, int]], frames: int,
    decoder_tflop: float,
) -> dict:  # fmt: skip
    """What the script computes from; `sizes` (widths and heights) begin with the paper's, at which other values start.

    The planner starts at uniform `cfg`; devices have known peaks and bandwidths.
    """
    low, high = efficiency.interval()
    return {
        "model": {"hidden": cfg.hidden, "headDim": cfg.head_dim, "channels": cfg.in_channels, "textDim": cfg.text_dim,
                  "blocks": cfg.blocks, "heads": cfg.self_heads[0], "ffn": cfg.ffn_widths[0]},
        "devices": [{"name": f"{d.name} ({d.chip}, {d.engine})", "tflops": d.tflops, "gbs": d.gb_s} for d in devices],
        "efficiency": {"typical": efficiency.typical, "low": low, "high": high},
        "sizes": [list(size) for size in sizes], "frames": frames, "cells": sizes[0][0] * sizes[0][1] * frames,
        "decoder": decoder_tflop, "weightFile": WEIGHT_FILE_BYTES, "chunk": CHUNK_BYTES,
    }  # fmt: skip


def page(data: dict) -> str:
    """Sliders, script and `numbers` as one piece of HTML."""
    text, model, first = json.dumps(data), data["model"], " x ".join(map(str, (*data["sizes"][0], data["frames"])))
    place = f"mobivid-live-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    # the value beside a slider, with its unit, is written by the script
    controls = [
        ("device", "Device", [d["name"] for d in data["devices"]]),
        ("efficiency", "Efficiency, share of peak", (0.05, 1, 0.01, round(data["efficiency"]["typical"], 2))),
        ("bandwidth", "Memory bandwidth", (-4, 2, 0.25, 0)),
        ("size", "Clip, pixels", [f"{w} x {h}" for w, h in data["sizes"]]),
        ("frames", "Frames", (9, 121, 8, data["frames"])),
        ("steps", "Steps", (1, 40, 1, 4)),
        ("decoder", f"Decoder at {first}", (0, 10, 0.1, round(data["decoder"], 1))),
        ("blocks", "Blocks", (1, 40, 1, model["blocks"])),
        ("heads", "Heads", (1, 32, 1, model["heads"])),
        ("ffn", "FFN width", (256, 8192, 256, model["ffn"])),
    ]
    rows = "".join(
        f'<label for="{place}-{name}">{label}</label>{_control(place, name, values)}'
        for name, label, values in controls
    )
    # JupyterLab runs an output's script before the output is part of the document: look for it until it is there.
    return (
        f'<style>{_STYLE}</style><div id="{place}" class="mobivid-live">'
        f'<div aria-live="polite"><p class="speed"></p><p class="plan"></p></div>'
        f'<div class="controls">{rows}</div></div>'
        f"<script>(() => {{ {SCRIPT.read_text(encoding='utf-8')}\n"
        f'MobiVidLive.when("{place}", (root) => MobiVidLive.mount(root, {text})); }})();</script>'
    )


def _control(place: str, name: str, values: list | tuple) -> str:
    """A menu of a list of options, or a slider of (low, high, step, value)."""
    if isinstance(values, list):
        items = "".join(f'<option value="{i}">{escape(text)}</option>' for i, text in enumerate(values))
        return f'<select id="{place}-{name}" name="{name}">{items}</select>'
    low, high, step, value = values
    return (
        f'<input type="range" id="{place}-{name}" name="{name}" min="{low}" max="{high}" step="{step}" '
        f'value="{value}"><output for="{place}-{name}" data-of="{name}">{value}</output>'
    )


def explore(data: dict) -> HTML:
    """The page as a notebook's output."""
    return HTML(page(data))
