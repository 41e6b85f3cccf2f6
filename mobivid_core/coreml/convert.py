"""Torch modules to Core ML packages, and packages with smaller weights, on any machine.

Paper: the on-device section (float16 Core ML, data/paper claim C26). A torch module is captured with `torch.export`,
decomposed with an empty table (coremltools' own operators are faster than the default decompositions), and converted
to an ML Program for iOS 18 with float16 compute. coremltools' own optimisers rewrite a saved package with 8-bit
integers or palettes, without training or calibration data; activations and tensors below 2,048 values keep float16.

Two faults of coremltools 9 are silent: the package converts, runs, and computes something else. Keyword arguments of
exported graphs may be dropped (`gelu(approximate="tanh")` becomes exact GELU, `add(alpha=2)` becomes `add`): the guard
looks for the keyword in the converter's own source and refuses the graph if it is not read there, so it also follows
later versions. And `_register_converters` replaces an inexact operator.
"""

from __future__ import annotations

import functools
import inspect
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mobivid_core.coreml.packages import Package, import_coremltools, quiet_bars, save_package
from mobivid_core.errors import ExportError, ParameterError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Bits of smaller weights, the same for all: integers with one scale an output channel, or a palette of 64 or 16 values
#: a tensor, by k-means.
SCHEMES = (8, 6, 4)
#: Keywords that cannot change a value on the device.
_NO_EFFECT = {"device", "layout", "pin_memory", "non_blocking", "memory_format", "generator"}


def capture(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """A module as a graph that coremltools converts faithfully; an ExportError if it would drop a keyword argument."""
    import_coremltools()
    _register_converters()
    with torch.no_grad(), warnings.catch_warnings():
        # A deprecation of torch by torch, inside export; nothing a caller could change.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        program = torch.export.export(module.eval(), tuple(inputs)).run_decompositions({})
    _refuse_dropped_keywords(program)
    return program


def convert(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path) -> Package:
    """Convert a float32 module to a float16 ML Program (iOS 18) and save it.

    Args:
        module: Called with `inputs` in order; float32 parameters (a halved model fails in coremltools).
        inputs: Name -> example tensor; float tensors become float16 inputs, integers int32.
        outputs: Names of the outputs in order.
        path: `.mlpackage` folder to write; replaced if it exists.

    Raises:
        ExportError: The graph is refused, an operator is unsupported, or the disk is full.
    """
    start = time.perf_counter()
    ct = import_coremltools()
    captured = capture(module, tuple(inputs.values()))
    kinds = {name: np.float16 if tensor.is_floating_point() else np.int32 for name, tensor in inputs.items()}
    try:
        with quiet_bars():
            model = ct.convert(
                captured,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=ct.precision.FLOAT16,
                inputs=[ct.TensorType(name=n, shape=tuple(t.shape), dtype=kinds[n]) for n, t in inputs.items()],
                outputs=[ct.TensorType(name=n, dtype=np.float16) for n in outputs],
                skip_model_load=True,
            )
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise ExportError(f"coremltools cannot convert {type(module).__name__}: {error}") from error
    return save_package(model, path, sum(p.numel() for p in module.parameters()), start)


def compress(package: Package, bits: int | Mapping[str, int], path: Path) -> Package:
    """Write a copy of a float16 package with smaller weights; an ExportError if coremltools refuses.

    `bits` are one of `SCHEMES`, or those of a palette for each named layer, where others keep float16.
    """
    start = time.perf_counter()
    ct = import_coremltools()
    import coremltools.optimize.coreml as optimize

    optimiser = optimize.palettize_weights
    if isinstance(bits, Mapping):
        config = {"op_name_configs": {n: optimize.OpPalettizerConfig("kmeans", nbits=b) for n, b in bits.items()}}
    elif bits == 8:
        optimiser = optimize.linear_quantize_weights
        integers = optimize.OpLinearQuantizerConfig("linear_symmetric", dtype="int8", granularity="per_channel")
        config = {"global_config": integers}
    elif bits in SCHEMES:
        config = {"global_config": optimize.OpPalettizerConfig("kmeans", nbits=bits)}
    else:
        raise ParameterError(f"weights of {bits} bits are not offered; choose {', '.join(map(str, SCHEMES))}")
    try:
        with quiet_bars():
            model = ct.models.MLModel(str(package.path), skip_model_load=True)
            smaller = optimiser(model, optimize.OptimizationConfig(**config))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ExportError(f"{package.path.name} cannot be stored with smaller weights: {error}") from error
    return save_package(smaller, path, package.params, start)


def _refuse_dropped_keywords(program: ExportedProgram) -> None:
    """Refuse a graph in which coremltools would ignore an argument, and name the model's line that made it.

    A keyword is safe if it has its default value, cannot change a value, or is read by the operator's converter.
    """
    for node in program.graph.nodes:
        if node.op != "call_function" or not node.kwargs:
            continue
        defaults = {a.name: a.default_value for a in node.target._schema.arguments if a.has_default_value()}
        for keyword, value in node.kwargs.items():
            # Tensors are never compared: only plain values can equal their default.
            plain = isinstance(value, (bool, int, float, str))
            if keyword in _NO_EFFECT or value is None or (plain and keyword in defaults and value == defaults[keyword]):
                continue
            if not _converter_reads(node.target, keyword):
                where = (node.meta.get("stack_trace") or "").strip().splitlines()[-1:]
                raise ExportError(
                    f"{node.target}({keyword}={value!r}) would be converted as if {keyword} were "
                    f"{defaults.get(keyword)!r}: coremltools drops this keyword. Write the operation without it"
                    + "".join(f". The line: {line.strip()}" for line in where)
                )


def _converter_reads(target: object, keyword: str) -> bool:
    """True if the source of coremltools' converter for an operator reads the keyword."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    function = _TORCH_OPS_REGISTRY.get_func(target.name())
    if function is None:
        return True  # coremltools itself refuses an operator it does not know, with its name
    return re.search(rf"""_get_kwinputs\([^)]*["']{keyword}["']""", inspect.getsource(function)) is not None


@functools.cache
def _register_converters() -> None:
    """Two converters that coremltools 9 lacks or has wrong.

    `alias` (a full-range slice after export) is unknown to it: identity. Its `rms_norm` divides by the largest value
    first, so that squares fit float16, but adds eps to the scaled mean square: x / sqrt(mean(x^2) + eps max^2), an
    error of up to 3e-5 for eps = 1e-5, and 0/0 on a zero vector. Ours is the layer norm of [x, -x], whose mean is zero
    and whose variance is mean(x^2): exact, one rounded operation instead of six, and native on the Neural Engine
    (in use there by the ANEMLL project, third-party; how the device accumulates inside it is not documented).
    """
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    def alias(context: object, node: object) -> None:
        context.add(mb.identity(x=_get_inputs(context, node, expected=1)[0], name=node.name))

    def rms_norm(context: object, node: object) -> None:
        x, shape, weight, eps = _get_inputs(context, node, expected=4)
        if len(shape.val) != 1:
            raise NotImplementedError("rms_norm over several axes has no converter here")
        both = mb.concat(values=[x, mb.mul(x=x, y=-1.0)], axis=-1)
        normed = mb.layer_norm(x=both, axes=[-1], epsilon=float(eps.val if eps is not None else 1e-5))
        whole = [True] * (x.rank - 1)
        half = mb.slice_by_index(
            x=normed, begin=[0] * x.rank, end=[0] * (x.rank - 1) + [int(shape.val[0])], begin_mask=[*whole, True],
            end_mask=[*whole, False],
        )  # fmt: skip
        context.add(mb.identity(x=half, name=node.name) if weight is None else mb.mul(x=half, y=weight, name=node.name))

    register_torch_op(alias, override=True)
    register_torch_op(rms_norm, override=True)
