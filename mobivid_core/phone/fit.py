"""Does a model fit a phone? Memory, packages and buffers of a text-to-video transformer against the limits known.

Paper: 0.9 B parameters in float16 are chosen for a phone (data/paper claim C13). Sizes are counted in closed form from
a configuration; no weight is read. Simplified: decoder and text encoder are those that the transformer's own sizes
point to (`read_model`), and one package runs at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mobivid_core.errors import ParameterError
from mobivid_core.files import read_json
from mobivid_core.models.config import MOBILE, SERVER, DiTConfig
from mobivid_core.models.counts import Grid, LayerCount, dit_counts
from mobivid_core.phone.devices import Device
from mobivid_core.phone.references import clip_text_counts, light_decoder_counts, ltx_decoder_counts

#: Bytes of a weight file that the Neural Engine's compiler refuses.
WEIGHT_FILE_BYTES = 2**31
#: Weights of one package on iOS: larger ones have to be 6-bit or smaller (Apple's ml-stable-diffusion, third-party).
CHUNK_BYTES = 1e9
#: Largest single buffer.
BUFFER_BYTES = 2**32
#: Share of a phone's memory that an app may fill before the system ends it: `assumed`.
APP_SHARE = 0.5
_BITS = (16, 8, 6, 4)
_NAMED = {"mobile": MOBILE, "server": SERVER}


@dataclass(frozen=True)
class Model:
    """What a configuration says."""

    sizes: DiTConfig  # of the transformer
    kind: str = "mobivid"  # or "ltx"
    text_tokens: int = 77

    def decoder(self, grid: Grid) -> LayerCount:
        """LTX-Video's own decoder for its transformers, else the light one at as many latent channels."""
        return ltx_decoder_counts(grid) if self.kind == "ltx" else light_decoder_counts(grid, self.sizes.in_channels)

    def text_encoder(self) -> LayerCount:
        """T5 v1.1 XXL for 4096-wide states, else CLIP ViT-L/14's sizes."""
        return _t5_counts(self.text_tokens) if self.sizes.text_dim == 4096 else clip_text_counts(self.text_tokens)

    def packages(self, grid: Grid) -> dict[str, LayerCount]:
        """Counts of each package, in one pass of the transformer."""
        transformer = dit_counts(self.sizes, grid, self.text_tokens)["total"]
        return {"transformer": transformer, "decoder": self.decoder(grid), "text encoder": self.text_encoder()}


def read_model(where: str) -> Model:
    """A model from "mobile", "server", a folder with a config.json, or such a file.

    diffusers' `LTXVideoTransformer3DModel` and this project's transformers are understood; a ParameterError if nothing
    is there, or the file describes another kind of model.
    """
    if where in _NAMED:
        return Model(_NAMED[where])
    path = Path(where).expanduser()
    path = next((p for p in (path, path / "config.json", path / "transformer" / "config.json") if p.is_file()), None)
    if path is None:
        raise ParameterError(f"{where!r} is neither {', '.join(_NAMED)}, nor a folder or file with a config.json")
    config = read_json(path, None)
    name = config.get("_class_name") if isinstance(config, dict) else None
    try:
        if name == "LTXVideoTransformer3DModel":
            return Model(_ltx_sizes(config), "ltx", 128)
        if name == "MobiVidTransformer3DModel":
            widths = ("hidden", "head_dim", "self_heads", "cross_heads", "ffn_widths", "in_channels", "text_dim")
            return Model(DiTConfig.from_kwargs({width: config[width] for width in widths}))
    except (KeyError, TypeError, ValueError) as error:
        raise ParameterError(f"{path} is no complete configuration: {error!r}") from error
    raise ParameterError(f"{path} describes {name!r}; expected LTXVideoTransformer3DModel or MobiVidTransformer3DModel")


def _ltx_sizes(config: dict) -> DiTConfig:
    """diffusers' LTX transformer as this project's sizes: FFN four times as wide, as many cross as self heads."""
    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    return DiTConfig.uniform(
        blocks=config["num_layers"], heads=heads, ffn=4 * heads * width, hidden=heads * width, head_dim=width,
        in_channels=config["in_channels"], text_dim=config["caption_channels"],
    )  # fmt: skip


def _t5_counts(tokens: int) -> LayerCount:
    """T5 v1.1 XXL's encoder: 24 layers of 4096, 64 heads of 64, a gated FFN of 10,240, 32,128 embeddings."""
    layers, hidden, ffn, vocabulary = 24, 4096, 10_240, 32_128
    matrices = layers * (4 * hidden * hidden + 3 * hidden * ffn)
    params = matrices + vocabulary * hidden
    flops = 2 * tokens * matrices + layers * 4 * tokens * tokens * hidden
    return LayerCount(params, flops, 2 * params, 2 * tokens * (2 * hidden + 2 * ffn), 2 * matrices)


def package_table(model: Model, grid: Grid) -> pd.DataFrame:
    """Size of each package at each number of bits, against the limits.

    Rows have `package`, `bits`, `MB`, `one weight file` (below 2 GiB), and `parts` (packages of at most 1 GB; weights
    of 6 bits or fewer may stay in one file).
    """
    rows = []
    for name, count in model.packages(grid).items():
        for b in _BITS:
            size = count.params * b / 8
            parts = math.ceil(size / (WEIGHT_FILE_BYTES if b <= 6 else CHUNK_BYTES))
            rows.append((name, b, size / 1e6, size < WEIGHT_FILE_BYTES, parts))
    return pd.DataFrame(rows, columns=["package", "bits", "MB", "one weight file", "parts"])


def buffer_table(model: Model, grid: Grid, frames: int, size: tuple[int, int]) -> pd.DataFrame:
    """The largest single tensors in float16, against 4 GiB; `size` is the clip's width and height."""
    tokens, sizes = grid[0] * grid[1] * grid[2], model.sizes
    heads, ffn = max(sizes.self_heads), max(sizes.ffn_widths)
    tensors = {
        "attention scores of one layer, if stored whole": 2 * heads * tokens * tokens,
        "FFN's hidden activation": 2 * tokens * ffn,
        "FFN's weight": 2 * sizes.hidden * ffn,
        "decoder's largest layer, input and output": model.decoder(grid).peak_bytes,
        "the clip": 2 * 3 * frames * size[0] * size[1],
    }
    rows = [(name, n / 1e6, n < BUFFER_BYTES) for name, n in tensors.items()]
    return pd.DataFrame(rows, columns=["tensor", "MB", "below 4 GiB"])


def peak_memory(model: Model, grid: Grid, bits: int = 16) -> dict[str, float]:
    """Gigabytes (1e9 bytes) at the peak: everything loaded at once, or one package after the other.

    `bits` are those of the transformer's weights; the rest keeps 16.
    """
    transformer, *others = model.packages(grid).values()
    parts = [(transformer.params * bits / 8, transformer.peak_bytes), *((2 * c.params, c.peak_bytes) for c in others)]
    together = sum(weights for weights, _ in parts) + max(peak for _, peak in parts)
    return {"all loaded": together / 1e9, "one at a time": max(w + p for w, p in parts) / 1e9}


def advice(model: Model, grid: Grid, frames: int, size: tuple[int, int], devices: Sequence[Device]) -> list[str]:
    """What to change so that the model fits, one sentence each; empty if it does as it is."""
    said = []
    for name, rows in package_table(model, grid).groupby("package", sort=False):
        whole, *_, least = rows.to_dict("records")
        if whole["parts"] == 1:
            continue
        refused = "" if whole["one weight file"] else ", a file that the Neural Engine refuses"
        smaller = f"or, with 4-bit weights, into {least['parts']}"
        if fits := next(rows[rows["parts"] == 1].itertuples(), None):
            smaller = f"or store {fits.bits}-bit weights ({fits.MB:,.0f} MB)"
        said.append(
            f"{name}: {whole['MB']:,.0f} MB in float16{refused}; cut it into {whole['parts']} packages {smaller}"
        )
    buffers = buffer_table(model, grid, frames, size)
    for row in buffers[~buffers["below 4 GiB"]].itertuples():
        tiles = math.ceil(row.MB / 4295)
        said.append(f"{row.tensor}: {row.MB:,.0f} MB exceed one buffer; work in {tiles} tiles or shrink the clip")
    needs = {b: peak_memory(model, grid, b) for b in _BITS}
    for ram in sorted({d.ram_gb for d in devices if d.ram_gb}):
        room, chips = APP_SHARE * ram, ", ".join(d.chip for d in devices if d.ram_gb == ram)
        if needs[16]["all loaded"] <= room:
            continue
        way = next(((b, how) for b in needs for how in needs[b] if needs[b][how] <= room), None)
        done = f"{way[0]}-bit weights, {way[1]} ({needs[way[0]][way[1]]:.1f} GB)" if way else "a smaller text encoder"
        said.append(
            f"{chips}: {needs[16]['all loaded']:.1f} GB at once exceed {room:g} GB, the half of the memory that an app "
            f"may fill (assumed); take {done}"
        )
    return said
