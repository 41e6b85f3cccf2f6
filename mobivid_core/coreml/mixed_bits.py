"""Mixed weight bits, 2 to 8 by layer: layers with the largest single damage get more, under a byte budget.

Paper: none (it deploys float16, data/paper claim C26); SnapGen++ (arXiv 2601.08303) ships 4.3 bits on average. A
layer's damage at a number of bits is the squared error that its palette alone causes in the part's result: the latents
after all steps for the transformer (later steps change an error of one step's velocity), the clip for the decoder.
Damages are assumed to add up, and each layer has the bits with the least damage plus bytes times one price, the price
at which the budget is spent (Lagrange). All parts share one budget, with their damages in the clip's squared error;
most of the decoder's weights need only 2 bits.

Simplified: one palette a tensor; biases, norms and tensors below 2,048 values keep float16. SnapGen++ tunes biases and
norms afterwards by self-distillation; here nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mobivid_core.coreml.app import sample
from mobivid_core.coreml.convert import compress
from mobivid_core.coreml.graphs import Graph
from mobivid_core.coreml.mil import Program
from mobivid_core.coreml.packages import load_program
from mobivid_core.coreml.verify import Verification, verify
from mobivid_core.errors import ExportError, ParameterError

#: Bits of an index that Core ML can read, without the one that is of no use here.
BITS = (2, 3, 4, 6, 8)
#: Bits at which a layer's damage is measured; above them it follows the palette's squared error, which needs no run.
MEASURED = (2, 3, 4, 6)
#: Values below which a tensor keeps float16, as in coremltools' own optimisers.
SMALLEST = 2048
#: Bits of the uniform palette whose bytes are the budget.
UNIFORM = 4
_ROUNDS = 60
#: Added to the seed of noise, so that no clip here starts from the noise of one that judges the result.
_SEEDS = 500_000


def weights(program: Program) -> dict[str, np.ndarray]:
    """Constants that a palette may replace."""
    return {n: v for n, v in program.constants.items() if v.dtype.kind == "f" and v.size > SMALLEST and v.ndim > 1}


def palette(weight: np.ndarray, bits: int) -> np.ndarray:
    """The weight with 2^bits distinct values: k-means (Lloyd's algorithm in one dimension).

    The first centres follow the cube root of the density, the optimum for many centres (Panter and Dite 1951). Starting
    at quantiles leaves the few large values of a heavy-tailed weight without a centre, which Lloyd's steps do not
    mend: at 8 bits the error of the decoder's first layer stayed at that of 5.
    """
    flat = np.sort(weight.astype(np.float32).reshape(-1))
    count, edges = np.histogram(flat, bins=4096)
    filled = np.concatenate([[0.0], np.cumsum(np.cbrt(count))])
    centres = np.unique(np.interp((np.arange(2**bits) + 0.5) / 2**bits, filled / filled[-1], edges))
    total = np.concatenate([[0.0], np.cumsum(flat, dtype=np.float64)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2)
        cuts = np.concatenate([[0], edges, [len(flat)]])
        count = np.diff(cuts)
        means = np.diff(total[cuts]) / np.maximum(count, 1)
        centres = np.where(count > 0, means, centres)
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, weight.astype(np.float32).reshape(-1))
    return centres[nearest].reshape(weight.shape).astype(weight.dtype)


def parameters_of(module: nn.Module, program: Program) -> dict[str, Tensor]:
    """A package's weights in the module it was converted from: name of the constant -> parameter.

    The converter renames weights but keeps their values in order, so that equal values tell which is which, once the
    module's are rounded to float16, as `convert_and_verify` leaves them.
    """
    large = [p for p in module.parameters() if p.numel() > SMALLEST]
    found = {}
    for name, constant in weights(program).items():
        value = torch.from_numpy(np.ascontiguousarray(constant)).float().reshape(-1)
        same = [p for p in large if p.numel() == value.numel() and torch.equal(p.detach().reshape(-1), value)]
        if not same:
            raise ExportError(f"weight {name} of the package is no parameter of {type(module).__name__}")
        found[name] = same[0]
        large = [p for p in large if p is not same[0]]
    return found


def layer_damage(layers: Mapping[str, Tensor], run: Callable[[], Tensor]) -> pd.DataFrame:
    """What each layer's palette costs alone, at each number of bits.

    `layers` (from `parameters_of`), with which `run` computes what the part hands on, are changed in place for each run
    and restored. Rows have `layer`, `values`, and a column for each of `BITS`: mean squared error of `run`'s tensor.
    """
    rows = []
    with torch.no_grad():
        expected = run()
        for name, weight in layers.items():
            intact = weight.detach().clone()
            row, squares = {"layer": name, "values": intact.numel()}, {}
            for b in BITS:
                squares[b] = set_palette(weight, intact, b)
                if b in MEASURED:
                    row[b] = (run() - expected).square().mean().item()
                else:
                    row[b] = row[MEASURED[-1]] * squares[b] / max(squares[MEASURED[-1]], 1e-30)
            weight.copy_(intact)
            rows.append(row)
    return pd.DataFrame(rows)


def set_palette(weight: Tensor, intact: Tensor, bits: int) -> float:
    """Write a weight's float16 palette into `weight`; returns its mean squared error."""
    with torch.no_grad():
        weight.copy_(torch.from_numpy(palette(intact.numpy(), bits)).half())
        return (weight - intact).square().mean().item()


def palette_bytes(values: int, bits: int) -> float:
    """Bytes of a tensor's indices and its float16 palette."""
    return values * bits / 8 + 2 * 2**bits


def allocate(damage: pd.DataFrame, budget: float) -> list[int]:
    """Bits of each row of `layer_damage` with the least summed damage below a budget, up to the last few layers.

    Each layer takes the bits with the least damage plus bytes times a price; the price is the smallest one that keeps
    the budget in bytes. What is left buys single layers more, most damage removed a byte first. A ParameterError if
    even the fewest bits exceed the budget.
    """
    harm, rows = damage[list(BITS)].to_numpy(float), np.arange(len(damage))
    size = np.array([[palette_bytes(values, b) for b in BITS] for values in damage["values"]])
    if size[:, 0].sum() > budget:
        raise ParameterError(
            f"{BITS[0]} bits everywhere are {size[:, 0].sum():,.0f} bytes, the budget is {budget:,.0f}"
        )
    low, high = 1e-40, 1e10
    for _ in range(100):
        price = (low * high) ** 0.5
        over = size[rows, (harm + price * size).argmin(1)].sum() > budget
        low, high = (price, high) if over else (low, price)
    picks = (harm + high * size).argmin(1)
    while True:
        now, spent = harm[rows, picks][:, None], size[rows, picks][:, None]
        more = size - spent
        gain = np.where((more > 0) & (more <= budget - spent.sum()), (now - harm) / np.maximum(more, 1e-9), 0)
        layer, choice = np.unravel_index(gain.argmax(), gain.shape)
        if gain[layer, choice] <= 0:
            return [BITS[k] for k in picks]
        picks[layer] = choice


def with_bits(damage: pd.DataFrame) -> pd.DataFrame:
    """`layer_damage` with the chosen `bits`, at the bytes of a uniform palette."""
    return damage.assign(bits=allocate(damage, sum(palette_bytes(v, UNIFORM) for v in damage["values"])))


def average_bits(damage: pd.DataFrame) -> float:
    """Bits of a weight, on average over the values of these layers."""
    return float((damage["values"] * damage["bits"]).sum() / damage["values"].sum())


def expected_gain_db(damage: pd.DataFrame) -> float:
    """What the chosen bits gain over uniform ones if damages add up."""
    chosen = sum(row[row["bits"]] for row in damage.to_dict("records"))
    return float(10 * np.log10(damage[UNIFORM].sum() / chosen))


class Mixed(NamedTuple):
    """What `mixed_app` made."""

    made: list[Verification]  # transformer and decoder
    average: float  # bits a weight, over both
    expected_db: float  # what bits by layer gain over uniform ones if the layers' damages add up


def mixed_app(
    parts: Sequence[tuple[Graph, Verification]], tables: dict[str, Tensor], captions: Sequence[str], folder: Path,
    seed: int = 0,
) -> Mixed:  # fmt: skip
    """Transformer and decoder at the bytes of uniform 4 bits, bits by layer: `<part>_mixed.mlpackage` in `folder`.

    Args:
        parts: Transformer and decoder with their float16 packages, in this order.
        tables: From `bundle.timestep_tables`.
        captions: Of the clips on which damage is measured; none of those that judge the result.
        folder: Gets the packages.
        seed: Of the clips' noise.
    """
    from mobivid_core.models.text import encode_text

    step, decoder = (graph.module for graph, _ in parts)
    inner, outer = (parameters_of(graph.module, load_program(made.package.path)) for graph, made in parts)
    shape = parts[0][0].inputs["latents"].shape[1:]
    noise = torch.randn((len(captions), *shape), generator=torch.Generator().manual_seed(seed + _SEEDS))
    text, mask = encode_text(list(captions))

    def latents() -> Tensor:
        return sample(step, noise, text, mask, tables)

    with torch.no_grad():
        intact = latents()
        weight = _clip_error(inner, latents, intact, decoder)
    early, late = layer_damage(inner, latents), layer_damage(outer, lambda: _decoded(decoder, intact))
    early[list(BITS)] *= weight
    damage, made = with_bits(pd.concat([early, late], keys=(0, 1))), []
    for number, (graph, verified) in enumerate(parts):
        mine = damage.loc[number]
        bits = dict(zip(mine["layer"], mine["bits"], strict=True))
        package = compress(verified.package, bits, folder / f"{graph.name}_mixed.mlpackage")
        made.append(verify(graph, package, bits=average_bits(mine)))
    return Mixed(made, average_bits(damage), expected_gain_db(damage))


def _decoded(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Clips of (N, C, t, h, w) latents by a decoder that takes one."""
    return torch.cat([decoder(z) for z in latents.split(1)])


def _clip_error(
    layers: Mapping[str, Tensor], latents: Callable[[], Tensor], intact: Tensor, decoder: nn.Module
) -> float:
    """Squared error of the clip for one of the latents, at the errors that uniform bits make in the transformer."""
    before = {name: weight.detach().clone() for name, weight in layers.items()}
    for name, weight in layers.items():
        set_palette(weight, before[name], UNIFORM)
    changed = latents()
    for name, weight in layers.items():
        weight.copy_(before[name])
    clip_error = (_decoded(decoder, changed) - _decoded(decoder, intact)).square().mean()
    return float(clip_error / (changed - intact).square().mean())
