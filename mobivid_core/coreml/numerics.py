"""Numerical gate of a package: finds forms that a float16 engine may compute wrongly although all checks pass.

Paper: none. The executor accumulates in float32, a Neural Engine may keep float16 inside an operation. The gate names
scores that leave float16's range before a softmax, squares that leave it in a norm (RMS norms written with a power
overflow above 256), results outside the range, and 8-bit weights with a scale a block, which the engine's compiler is
known to mishandle (third-party reports; not tried here).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from torch import Tensor

from mobivid_core.coreml.mil import Operation, run
from mobivid_core.coreml.packages import load_program, stored_program

#: Largest float16.
LARGEST = 65_504.0


def unsafe_forms(package: Path, inputs: Mapping[str, Tensor]) -> pd.DataFrame:
    """Forms of a saved package that are unsafe in float16, on one set of inputs, as `mil.execute` takes them.

    Returns:
        Rows with `form`, `operation`, `largest` (the value that leaves the range) and `limit`; empty if none is found.
    """
    found = list(_block_scales(package))

    def look(operation: Operation, values: Mapping[str, object]) -> None:
        out = values[operation.outputs[0].name]
        if not (isinstance(out, Tensor) and out.is_floating_point()):
            return

        def given(name: str) -> Tensor:
            return values[operation.inputs[name]].float()

        form, inside = "a result", out
        if operation.kind == "scaled_dot_product_attention":
            form, inside = "scores before a softmax", given("query") @ given("key").transpose(-1, -2)
        elif operation.kind == "softmax":
            form, inside = "scores before a softmax", given("x")
        elif operation.kind == "layer_norm":
            # A mean, not a sum: an engine that sums squares in float16 would fail on every wide layer.
            form, inside = "squares in a norm", given("x").square().mean(-1)
        elif operation.kind in ("square", "pow"):
            form = "a square or power"
        largest = inside.abs().max().item()
        if not largest <= LARGEST:
            found.append((form, f"{operation.kind} ({operation.outputs[0].name})", largest, LARGEST))

    run(load_program(package), inputs, "fp32", look)
    return pd.DataFrame(found, columns=["form", "operation", "largest", "limit"])


def _block_scales(package: Path) -> Iterator[tuple[str, str, float, float]]:
    """8-bit weights with more scales than output channels."""
    for op in stored_program(package).operations:
        if op.op_type != "constexpr_blockwise_shift_scale":
            continue
        scale, data = op.scale.val, op.data.val
        if sum(n > 1 for n in scale.shape) > 1 and "8" in str(data.dtype):
            yield "8-bit weights with a scale a block", op.outputs[0].name, float(scale.size), float(scale.shape[0])
