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
import torch
from torch import Tensor

from mobivid_core.coreml.mil import Operation, run
from mobivid_core.coreml.packages import load_program, stored_program

#: Largest float16.
LARGEST = 65_504.0
_NORMS = {"layer_norm", "batch_norm", "l2_norm", "reduce_l2_norm", "reduce_sum_square"}


def unsafe_forms(package: Path, inputs: Mapping[str, Tensor]) -> pd.DataFrame:
    """Forms of a saved package that are unsafe in float16, on one set of inputs, as `mil.execute` takes them.

    Returns:
        Rows with `form`, `operation`, `largest` (the value that leaves the range) and `limit`; empty if none is found.
    """
    found = list(_block_scales(package))

    def look(operation: Operation, values: Mapping[str, object]) -> None:
        if operation.kind == "const":
            return
        name = f"{operation.kind} ({operation.outputs[0].name})"
        given = {k: values[v] for k, v in operation.inputs.items() if isinstance(v, str)}
        for form, largest in _measured(operation, given, values[operation.outputs[0].name]):
            if not largest <= LARGEST:
                found.append((form, name, largest, LARGEST))

    run(load_program(package), inputs, "fp32", look)
    return pd.DataFrame(found, columns=["form", "operation", "largest", "limit"])


def _measured(operation: Operation, given: Mapping[str, object], out: object) -> Iterator[tuple[str, float]]:
    """(form, largest magnitude inside it) of one operation, in float32."""
    x = given.get("x")
    if operation.kind == "scaled_dot_product_attention":
        query, key = given["query"].float(), given["key"].float()
        yield "scores before a softmax", (query @ key.transpose(-1, -2)).abs().max().item()
    elif operation.kind == "softmax":
        yield "scores before a softmax", x.float().abs().max().item()
    elif operation.kind in _NORMS:
        # A mean, not a sum: an engine that sums squares in float16 would fail on every wide layer.
        yield "squares in a norm", x.float().square().mean(-1).max().item()
    elif operation.kind in ("square", "pow"):
        yield "a square or power", out.float().abs().max().item()
    elif isinstance(out, Tensor) and out.is_floating_point():
        yield "a result", out.float().abs().max().item() if torch.isfinite(out).all() else float("inf")


def _block_scales(package: Path) -> Iterator[tuple[str, str, float, float]]:
    """8-bit weights with more scales than output channels."""
    for op in stored_program(package).operations:
        if op.op_type != "constexpr_blockwise_shift_scale":
            continue
        scale, data = op.scale.val, op.data.val
        if sum(n > 1 for n in scale.shape) > 1 and "8" in str(data.dtype):
            yield "8-bit weights with a scale a block", op.outputs[0].name, float(scale.size), float(scale.shape[0])
