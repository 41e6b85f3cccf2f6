"""Execute a saved Core ML program with torch on any machine: checks results, not speed.

Paper: none; no public tool executes ML Programs off Apple hardware. The program is read back from the saved files
(`packages.load_program`) and executed operation by operation, in one of two modes: "fp32" (all arithmetic in float32,
to see conversion errors) and "fp16" (each output rounded to its declared type, to see what float16 storage between
operations costs). `mil_ops` holds the operations that our packages use.

Limits: it shares coremltools' reader and its definitions of the operations, and says nothing about the device's own
kernels, where products may accumulate in float16, or about placement and speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobivid_core.coreml.mil_ops import OPERATIONS
from mobivid_core.errors import ExportError

_MODES = ("fp32", "fp16")


@dataclass(frozen=True)
class Slot:
    """A value of the program: name, declared shape, element type ("fp16", "fp32", "int32", "bool", "str")."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Operation:
    """One operation: argument names -> names of values, and the slots it fills."""

    kind: str
    inputs: Mapping[str, str | list[str]]
    outputs: list[Slot]

    @property
    def sources(self) -> list[str]:
        """Names of all values that it reads."""
        return [name for v in self.inputs.values() for name in (v if isinstance(v, list) else [v])]


@dataclass(frozen=True)
class Program:
    """A package's main function."""

    inputs: list[Slot]
    constants: Mapping[str, np.ndarray]
    operations: list[Operation]
    outputs: list[str]

    def largest_rank(self) -> int:
        """Largest rank of any value that an operation makes or reads; Core ML refuses ranks above 5.

        A palette of small weights is stored with two axes more than its weight has (6 for a convolution). Core ML
        unpacks it while loading, so that only the weight it stands for counts.
        """
        read = {name for operation in self.operations for name in operation.sources}
        made = [len(slot.shape) for operation in self.operations for slot in operation.outputs]
        return max([*made, *(value.ndim for name, value in self.constants.items() if name in read)])


def execute(program: Program, inputs: Mapping[str, Tensor], mode: str = "fp32") -> dict[str, Tensor]:
    """Run a program on tensors of the declared shapes, in mode "fp32" or "fp16" (see above); returns float32 tensors.

    Raises:
        ExportError: An input is missing or misshapen, an operation is unknown, a result has another shape than
            declared, or an output is not finite (the first operation at fault is named).
    """
    if mode not in _MODES:
        raise ExportError(f"unknown mode {mode!r}; the modes are {', '.join(_MODES)}")
    if missing := sorted({operation.kind for operation in program.operations} - set(OPERATIONS)):
        raise ExportError(
            f"the executor has no operation {', '.join(missing)}; add it to mobivid_core/coreml/mil_ops.py"
        )
    results = run(program, inputs, mode)
    if not all(torch.isfinite(r).all() for r in results.values()):
        raise ExportError(
            f"the package's output is not finite in {mode} mode; the first non-finite operation is "
            + _first_non_finite(program, inputs, mode)
        )
    return results


def run(
    program: Program, inputs: Mapping[str, Tensor], mode: str, watch: Callable[[Operation, Mapping], None] | None = None
) -> dict[str, Tensor]:
    """All operations in order, unchecked; `watch` sees each with all values that are alive then."""
    values = {name: _constant(value) for name, value in program.constants.items()} | _given(program, inputs, mode)
    left = Counter([*program.outputs, *(name for operation in program.operations for name in operation.sources)])
    with torch.no_grad():
        for operation in program.operations:
            _step(operation, values, mode)
            if watch is not None:
                watch(operation, values)
            for name in operation.sources:  # what nothing reads any more goes, so that a large model fits in memory
                left[name] -= 1
                if not left[name]:
                    del values[name]
    return {name: torch.as_tensor(values[name]).float() for name in program.outputs}


def _first_non_finite(program: Program, inputs: Mapping[str, Tensor], mode: str) -> str:
    """The first operation that makes infinities or NaN of finite operands, found by running again."""
    culprits = []

    def finite(values: Mapping[str, object], names: Iterable[str]) -> bool:
        return all(torch.isfinite(v).all() for v in map(values.__getitem__, names) if isinstance(v, Tensor))

    def watch(operation: Operation, values: Mapping[str, object]) -> None:
        made = [slot.name for slot in operation.outputs]
        if not culprits and not finite(values, made) and finite(values, operation.sources):
            culprits.append(f"{operation.kind} ({made[0]})")

    run(program, inputs, mode, watch)
    return culprits[0] if culprits else "an input"


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    return (torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected)).item()


def _given(program: Program, inputs: Mapping[str, Tensor], mode: str) -> dict[str, object]:
    """The program's inputs, checked, and rounded to their declared type in fp16 mode."""
    values = {}
    for slot in program.inputs:
        if slot.name not in inputs:
            raise ExportError(f"input {slot.name!r} is missing; the package takes {[s.name for s in program.inputs]}")
        tensor = inputs[slot.name]
        if tuple(tensor.shape) != slot.shape:
            raise ExportError(f"input {slot.name!r} has shape {tuple(tensor.shape)}; the package takes {slot.shape}")
        values[slot.name] = _store(tensor, slot, mode)
    return values


def _step(operation: Operation, values: dict[str, object], mode: str) -> None:
    """Run one operation and keep its outputs, checked against their declared shapes."""
    arguments = {
        name: [_load(values[s]) for s in source] if isinstance(source, list) else _load(values[source])
        for name, source in operation.inputs.items()
    }
    try:
        out = OPERATIONS[operation.kind](**arguments)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ExportError(f"{operation.kind} ({operation.outputs[0].name}) failed: {error}") from error
    results = out if isinstance(out, (list, tuple)) else [out]
    for slot, result in zip(operation.outputs, results, strict=True):
        if isinstance(result, Tensor) and tuple(result.shape) != slot.shape:
            raise ExportError(
                f"{operation.kind} ({slot.name}) made shape {tuple(result.shape)}; the package declares {slot.shape}"
            )
        values[slot.name] = _store(result, slot, mode)


def _constant(value: np.ndarray) -> object:
    """Arrays as tensors of their stored type; text, scalars and lists of integers (shapes, axes) as Python values."""
    if value.dtype.kind in "USO":
        return str(value.item())
    if value.ndim == 0 or (value.ndim == 1 and value.dtype.kind in "iub"):
        return value.tolist()
    return torch.from_numpy(np.ascontiguousarray(value))


def _load(value: object) -> object:
    """Operands in float32: half-precision weights and activations are widened where they are used."""
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _store(value: object, slot: Slot, mode: str) -> object:
    """Keep a result: rounded to float16 if so declared and so asked."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.half() if mode == "fp16" and slot.dtype == "fp16" else value.float()
