"""Command: does a model fit a phone, and how fast would it be?

    mobivid predict --model mobile --size 49x512x384 --steps 4
    mobivid predict --model path/to/ltx/transformer --size 121x768x512 --steps 8 --guidance

Every second is `derived`: counts of the model over an assumed peak, at the efficiency that published models reach.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence

import pandas as pd

from mobivid_core.command import CommandParser, at_least_one, run_command
from mobivid_core.models.counts import latent_grid
from mobivid_core.phone.devices import NEURAL_ENGINE, load_devices
from mobivid_core.phone.efficiency import LEVEL, fit_efficiency, fps_interval
from mobivid_core.phone.fit import Model, advice, buffer_table, package_table, peak_memory, read_model
from mobivid_core.phone.roofline import clip_stages, seconds_by_kind


def predict(model: Model, frames: int, size: tuple[int, int], steps: int, guidance: bool = False) -> dict:
    """Everything that the command shows, for `frames` (1 + a multiple of 8) of a width and height (multiples of 32).

    Returns:
        `seconds` (a row a device: seconds by stage at the typical efficiency, whole clip with its interval, frames/s
        with its interval), `packages`, `buffers` (tables), `memory` (gigabytes) and `advice` (sentences).
    """
    grid = latent_grid(frames, size[1], size[0])
    phones = [d for d in load_devices() if d.engine == NEURAL_ENGINE and d.tflops]
    stages = clip_stages(
        model.sizes, grid, text_tokens=model.text_tokens, steps=steps, guidance=guidance, decoder=model.decoder(grid),
        text_encoder=model.text_encoder(),
    )  # fmt: skip
    fit, seconds = fit_efficiency(), []
    for device in phones:
        rate = fps_interval(stages, device, fit, frames)
        kinds = seconds_by_kind(stages, device, fit.typical)
        row = {"chip": device.chip} | kinds | {"whole clip": sum(kinds.values())}
        row |= {"fastest": frames / rate.high, "slowest": frames / rate.low}
        seconds.append(row | {"frames/s": rate.value, "low": rate.low, "high": rate.high, "peak": device.evidence})
    return {
        "seconds": pd.DataFrame(seconds),
        "packages": package_table(model, grid),
        "buffers": buffer_table(model, grid, frames, size),
        "memory": peak_memory(model, grid),
        "advice": advice(model, grid, frames, size, phones),
    }


def _parsed_size(text: str) -> tuple[int, int, int]:
    """Frames, width and height of "49x512x384"."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected FRAMESxWIDTHxHEIGHT such as 49x512x384, got {text!r}")
    return tuple(int(n) for n in match.groups())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = CommandParser("predict", __doc__)
    parser.add_argument("--model", required=True, help="mobile, server, or a folder or file with a config.json")
    parser.add_argument("--size", type=_parsed_size, default=(49, 512, 384), help="FRAMESxWIDTHxHEIGHT (49x512x384)")
    parser.add_argument("--steps", type=at_least_one, default=4, help="sampling steps (4)")
    parser.add_argument("--guidance", action="store_true", help="two passes a step")
    parser.add_argument("--json", action="store_true", help="numbers instead of tables")
    return run_command(_say, parser, arguments)


def _say(options: argparse.Namespace) -> None:
    frames, *size = options.size
    found = predict(read_model(options.model), frames, tuple(size), options.steps, options.guidance)
    if options.json:
        print(json.dumps({k: v.to_dict("records") if isinstance(v, pd.DataFrame) else v for k, v in found.items()}))
        return
    shown = {"index": False, "float_format": "{:.3g}".format}
    print(f"Seconds a clip by stage at the typical efficiency, with the {LEVEL:.0%} interval of the whole (derived):")
    print(found["seconds"].to_string(**shown))
    print("\nPackages (2 GiB a weight file on the Neural Engine, 1 GB a package above 6 bits):")
    print(found["packages"].to_string(**shown))
    print("\nLargest single tensors in float16:")
    print(found["buffers"].to_string(**shown))
    memory = ", ".join(f"{name} {gigabytes:.2f} GB" for name, gigabytes in found["memory"].items())
    print(f"\nPeak memory in float16: {memory}")
    print("\n".join(["\nTo fit:", *(f"- {line}" for line in found["advice"])]) if found["advice"] else "\nIt fits.")
