"""Mixed weight bits, 2 to 8 by layer: layers with the largest single damage get more, under a byte budget.

Paper: none (it deploys float16, data/paper claim C26); SnapGen++ (arXiv 2601.08303) ships 4.3 bits on average.
A layer's damage is measured on the package itself: its weight alone is replaced by its palette, the program is run on
example inputs (`mil.execute`), and the squared relative error of the output counts. Damages are taken to add up, and
bits are given greedily, most error removed a byte first. Palettes are k-means of the weight, no data but the examples
is used, and nothing is trained afterwards.

The bytes of a uniform palette of the fewest bits leave nothing to give, so that layers which bear it go below: at the
bytes of 4 bits the choice is 2, 3, 4, 6 or 8.

Simplified: one palette a tensor; biases, norms and tensors below 2,048 values keep float16.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.coreml.app import sample
from mobivid_core.coreml.graphs import Graph
from mobivid_core.coreml.library import import_coremltools, quiet_bars
from mobivid_core.coreml.mil import Operation, Program, execute, relative_error
from mobivid_core.coreml.packages import Package, load_program, operation_counts, package_of, save_package
from mobivid_core.coreml.steps import DiTStep
from mobivid_core.coreml.verify import Verification, verify_smaller
from mobivid_core.errors import ExportError, ParameterError
from mobivid_core.models.dit import MobiVidTransformer3DModel

#: Bits of an index that Core ML can read, without the one that is of no use here.
BITS = (2, 3, 4, 6, 8)
#: Bits at which a layer's damage is measured.
PROBE = 4
#: Values below which a tensor keeps float16, as in coremltools' own optimisers.
SMALLEST = 2048


def weights(program: Program) -> dict[str, int]:
    """Constants that a palette may replace: name -> number of values."""
    return {
        o.outputs[0].name: o.value.size
        for o in program.operations
        if o.kind == "const" and o.value is not None and o.value.dtype.kind == "f" and o.value.size > SMALLEST
        and o.value.ndim > 1
    }  # fmt: skip


def palette(weight: np.ndarray, bits: int, rounds: int = 60) -> np.ndarray:
    """The weight with 2^bits distinct values: k-means from quantiles (Lloyd's algorithm in one dimension).

    Args:
        weight: Any shape.
        bits: Of an index.
        rounds: Of assignment and mean.
    """
    flat = np.sort(weight.astype(np.float32).reshape(-1))
    centres = np.unique(np.quantile(flat, (np.arange(2**bits) + 0.5) / 2**bits))
    total = np.concatenate([[0.0], np.cumsum(flat, dtype=np.float64)])
    for _ in range(rounds):
        edges = np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2)
        cuts = np.concatenate([[0], edges, [len(flat)]])
        count = np.diff(cuts)
        means = np.diff(total[cuts]) / np.maximum(count, 1)
        centres = np.where(count > 0, means, centres)
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, weight.astype(np.float32).reshape(-1))
    return centres[nearest].reshape(weight.shape).astype(weight.dtype)


def layer_damage(
    program: Program, examples: Sequence[Mapping[str, Tensor]], bits: Sequence[int] = BITS
) -> pd.DataFrame:
    """What each layer's palette costs alone.

    Run at `PROBE` bits; at others the damage is taken to grow with the palette's squared error, which needs no run.

    Args:
        program: Float16 package, read back.
        examples: Inputs to run it on.
        bits: Palettes to compare.

    Returns:
        Rows with `layer`, `values`, and a column a number of bits: mean squared relative error of the outputs.
    """
    expected = [execute(program, inputs) for inputs in examples]
    constants = {o.outputs[0].name: o.value for o in program.operations if o.kind == "const"}
    rows = []
    for name, values in weights(program).items():
        changed = with_palettes(program, {name: PROBE})
        found = [
            relative_error(execute(changed, inputs)[key], value) ** 2
            for inputs, wanted in zip(examples, expected, strict=True)
            for key, value in wanted.items()
        ]
        squares = {b: _palette_error(constants[name], b) for b in {*bits, PROBE}}
        scale = float(np.mean(found)) / max(squares[PROBE], 1e-30)
        rows.append({"layer": name, "values": values} | {b: scale * squares[b] for b in bits})
    return pd.DataFrame(rows)


def _palette_error(weight: np.ndarray, bits: int) -> float:
    """Mean squared error of a weight's palette."""
    wide = weight.astype(np.float32)
    return float(np.square(palette(wide, bits) - wide).mean())


def with_palettes(program: Program, bits: Mapping[str, int]) -> Program:
    """A program whose named weights are replaced by their palettes."""

    def changed(o: Operation) -> Operation:
        b = bits.get(o.outputs[0].name) if o.kind == "const" else None
        return o if b is None else replace(o, value=palette(o.value, b))

    return replace(program, operations=[changed(o) for o in program.operations])


def palette_bytes(values: int, bits: int) -> float:
    """Bytes of a tensor's indices and its float16 palette."""
    return values * bits / 8 + 2 * 2**bits


def allocate(damage: pd.DataFrame, budget: float) -> dict[str, int]:
    """Bits of each layer with the least summed damage that a greedy walk finds below a budget.

    All layers start at the fewest bits; the step that removes most damage a byte is taken while it fits. Unlike a
    threshold on sensitivity, this gives small, sensitive layers their bits first.

    Args:
        damage: From `layer_damage`; columns that are numbers are bits.
        budget: Bytes of all palettes and indices.

    Raises:
        ParameterError: Even the fewest bits exceed the budget.
    """
    choices = sorted(c for c in damage.columns if isinstance(c, (int, np.integer)))
    layers = damage.set_index("layer")
    bits = {name: int(choices[0]) for name in layers.index}
    spent = sum(palette_bytes(layers.loc[n, "values"], b) for n, b in bits.items())
    if spent > budget:
        raise ParameterError(f"{choices[0]} bits everywhere are {spent:,.0f} bytes, the budget is {budget:,.0f}")
    queue: list[tuple[float, str, int]] = []

    def offer(name: str) -> None:
        for b in (c for c in choices if c > bits[name]):
            more = palette_bytes(layers.loc[name, "values"], b) - palette_bytes(layers.loc[name, "values"], bits[name])
            heapq.heappush(queue, (-(layers.loc[name, bits[name]] - layers.loc[name, b]) / more, name, int(b)))

    for name in bits:
        offer(name)
    while queue:
        gain, name, b = heapq.heappop(queue)
        if b <= bits[name] or gain >= 0:
            continue
        values = layers.loc[name, "values"]
        more = palette_bytes(values, b) - palette_bytes(values, bits[name])
        if spent + more <= budget:
            bits[name], spent = b, spent + more
            offer(name)
    return bits


def compress_mixed(package: Package, bits: Mapping[str, int], path: Path | str) -> Package:
    """Write a copy of a package with a palette a layer.

    Args:
        package: A saved float16 package.
        bits: From `allocate`; layers not named keep float16.
        path: `.mlpackage` folder to write; replaced if it exists.

    Raises:
        ExportError: coremltools refuses, or the disk is full.
    """
    start = time.perf_counter()
    ct = import_coremltools()
    import coremltools.optimize.coreml as optimize

    layers = {name: optimize.OpPalettizerConfig("kmeans", nbits=b) for name, b in bits.items()}
    try:
        with quiet_bars():
            model = ct.models.MLModel(str(package.path), skip_model_load=True)
            made = optimize.palettize_weights(model, optimize.OptimizationConfig(op_name_configs=layers))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ExportError(f"{package.path.name} cannot be stored with mixed bits: {error}") from error
    save_package(made, Path(path))
    return package_of(path, package.params, operation_counts(made), time.perf_counter() - start)


def step_inputs(
    step: Callable[..., Tensor], noise: Tensor, text: Tensor, mask: Tensor, tables: dict[str, Tensor]
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """What the transformer's package is given in each step of one clip, and the latents that the decoder gets.

    Args:
        step: As in `app.sample`.
        noise: (1, C, t, h, w).
        text: (1, L, D) token states.
        mask: (1, L) bool.
        tables: From `bundle.timestep_tables`.
    """
    seen: list[dict[str, Tensor]] = []

    def watched(latents: Tensor, text: Tensor, text_mask: Tensor, modulation: Tensor) -> Tensor:
        seen.append({"latents": latents, "text": text, "text_mask": text_mask, "modulation": modulation})
        return step(latents, text, text_mask, modulation)

    with torch.no_grad():
        return seen, sample(watched, noise, text, mask, tables)


def mixed_for(
    package: Package, examples: Sequence[Mapping[str, Tensor]], uniform: int = 4
) -> tuple[dict, pd.DataFrame]:
    """Bits by layer at the bytes of a uniform palette, with the damages they rest on.

    Args:
        package: A saved float16 package.
        examples: Inputs on which damage is measured; none of the clips that judge the result.
        uniform: Bits of the palette whose bytes are the budget.
    """
    program = load_program(package.path)
    damage = layer_damage(program, examples)
    budget = sum(palette_bytes(v, uniform) for v in damage["values"])
    return allocate(damage, budget), damage


def mixed_app(
    parts: Sequence[tuple[Graph, Verification]], model: MobiVidTransformer3DModel, tables: dict[str, Tensor],
    caption: str, folder: Path, *, seed: int = 0,
) -> tuple[list[Verification], float]:  # fmt: skip
    """Transformer and decoder at the bytes of uniform 4 bits, `<name>_mixed.mlpackage`, and their average bits.

    Args:
        parts: Transformer and decoder with their float16 packages, in this order.
        model: The transformer, to make the examples with.
        tables: From `bundle.timestep_tables`.
        caption: Of the one clip whose steps are the examples; none of those that judge the result.
        folder: Gets the packages.
        seed: Of that clip's noise.
    """
    from mobivid_core.models.text import encode_text

    shape = parts[0][0].inputs["latents"].shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    steps, latents = step_inputs(DiTStep(model, tuple(shape[2:])), noise, *encode_text([caption]), tables)
    made, spent, count = [], 0.0, 0
    for (graph, verified), examples in zip(parts, (steps, [{"latents": latents}]), strict=True):
        bits, damage = mixed_for(verified.package, examples)
        used = sum(v * bits[n] for n, v in zip(damage["layer"], damage["values"], strict=True))
        package = compress_mixed(verified.package, bits, Path(folder) / f"{graph.name}_mixed.mlpackage")
        made.append(verify_smaller(graph, package, float(used / damage["values"].sum())))
        spent, count = spent + used, count + damage["values"].sum()
    return made, float(spent / count)
