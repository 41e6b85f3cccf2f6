"""Workarounds for faults of coremltools 9: a guard against dropped arguments, two converters of our own.

Paper: none. Both faults are silent: the package converts, runs, and computes something else.

`refuse_dropped_keywords`: keyword arguments of exported graphs may be dropped (`gelu(approximate="tanh")` becomes exact
GELU, `add(alpha=2)` becomes `add`). The guard looks for the keyword in the converter's own source and refuses the graph
if it is not read there, so it also follows later versions. `register_converters`: a missing operator, an inexact one.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING

from mobivid_core.errors import ExportError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Keywords that cannot change a value on the device.
_NO_EFFECT = {"device", "layout", "pin_memory", "non_blocking", "memory_format", "generator"}


def refuse_dropped_keywords(program: ExportedProgram) -> None:
    """Refuse a graph in which coremltools would ignore an argument.

    A keyword is safe if it has its default value, cannot change a value, or is read by the operator's converter.

    Raises:
        ExportError: Names the operator, the keyword, its value and the model's line that made it.
    """
    for node in program.graph.nodes:
        if node.op != "call_function" or not node.kwargs:
            continue
        defaults = {a.name: a.default_value for a in node.target._schema.arguments if a.has_default_value()}
        for keyword, value in node.kwargs.items():
            if keyword in _NO_EFFECT or value is None or (keyword in defaults and _same(value, defaults[keyword])):
                continue
            if not _converter_reads(node.target, keyword):
                where = (node.meta.get("stack_trace") or "").strip().splitlines()[-1:]
                raise ExportError(
                    f"{node.target}({keyword}={value!r}) would be converted as if {keyword} were "
                    f"{defaults.get(keyword)!r}: coremltools drops this keyword. Write the operation without it"
                    + "".join(f". The line: {line.strip()}" for line in where)
                )


@functools.cache
def register_converters() -> None:
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
        width = int(shape.val[0])
        both = mb.concat(values=[x, mb.mul(x=x, y=-1.0)], axis=-1)
        normed = mb.layer_norm(x=both, axes=[-1], epsilon=float(eps.val if eps is not None else 1e-5))
        whole = [True] * (x.rank - 1)
        half = mb.slice_by_index(
            x=normed,
            begin=[0] * x.rank,
            end=[0] * (x.rank - 1) + [width],
            begin_mask=[*whole, True],
            end_mask=[*whole, False],
        )
        context.add(mb.identity(x=half, name=node.name) if weight is None else mb.mul(x=half, y=weight, name=node.name))

    register_torch_op(alias, override=True)
    register_torch_op(rms_norm, override=True)


def _converter_reads(target: object, keyword: str) -> bool:
    """True if the source of coremltools' converter for an operator reads the keyword."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    function = _TORCH_OPS_REGISTRY.get_func(target.name())
    if function is None:
        return True  # coremltools itself refuses an operator it does not know, with its name
    return re.search(rf"""_get_kwinputs\([^)]*["']{keyword}["']""", inspect.getsource(function)) is not None


def _same(value: object, default: object) -> bool:
    """Equality that treats 1 and 1.0 alike and never compares tensors."""
    return isinstance(value, (bool, int, float, str)) and value == default
