"""coremltools, imported lazily and without its harmless notices, and workarounds for faults of its version 9.

Paper: none. Both faults are silent: the package converts, runs, and computes something else.

`refuse_dropped_keywords`: keyword arguments of exported graphs may be dropped (`gelu(approximate="tanh")` becomes exact
GELU, `add(alpha=2)` becomes `add`). The guard looks for the keyword in the converter's own source and refuses the graph
if it is not read there, so it also follows later versions. `_register_converters`: a missing operator, an inexact one.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from mobivid_core.errors import ExportError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Known notices that say nothing about the package: no Core ML runtime off macOS; untested library versions (each
#: package is verified against torch instead); scikit-learn is only needed for k-means palettes; an embedding's
#: padding index, which it ignores, concerns gradients only.
_HARMLESS = (
    "Proxy: No module named",
    "has not been tested with coremltools",
    "Disabling scikit-learn",
    "does not support any inputs besides the weights and indices",
)
#: Keywords that cannot change a value on the device.
_NO_EFFECT = {"device", "layout", "pin_memory", "non_blocking", "memory_format", "generator"}


def import_coremltools() -> ModuleType:
    """coremltools, without its known harmless notices.

    Raises:
        ExportError: It is not installed, or its numpy pin is violated.
    """
    if tuple(int(n) for n in np.__version__.split(".")[:2]) >= (2, 4):
        raise ExportError(f"coremltools 9 fails with numpy {np.__version__}; install numpy>=2.3,<2.4")
    logging.getLogger("coremltools").addFilter(_not_harmless)
    try:
        import coremltools as ct
    except ImportError as error:
        raise ExportError(
            f"coremltools cannot be imported ({error}). Only export needs it: `pip install coremltools` installs it on "
            "macOS and on Linux x86-64; it has no package for Linux on ARM"
        ) from error
    try:
        import coremltools.libmilstoragepython  # noqa: F401
    except ImportError as error:
        raise ExportError(
            "this coremltools was built without its native parts, which it has for Python up to 3.13 on macOS and on "
            f"Linux x86-64 alone ({error}): export there; everything else works here"
        ) from error
    _register_converters()
    return ct


def _not_harmless(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _HARMLESS)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without coremltools' progress bars, which flood a notebook's output."""
    from tqdm import tqdm

    modules = [m for name, m in list(sys.modules.items()) if name.startswith("coremltools.")]
    bars = [(m, name, vars(m)[name]) for m in modules for name in ("tqdm", "_tqdm") if name in vars(m)]
    silent = functools.partial(tqdm, disable=True)
    for module, name, _ in bars:
        setattr(module, name, silent)
    try:
        yield
    finally:
        for module, name, bar in bars:
            setattr(module, name, bar)


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
