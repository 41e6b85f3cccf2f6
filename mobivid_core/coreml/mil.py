"""Execute a saved Core ML program with torch on any machine: checks results, not speed.

Paper: none; no public tool executes ML Programs off Apple hardware, and a package that nobody ran proves nothing.
The program is read back from the saved files (`packages.load_program`) and executed operation by operation, in one of
two modes: "fp32" (all arithmetic in float32: tells conversion errors) and "fp16" (each output rounded to its declared
type: tells what float16 storage between operations costs). Only the operations our packages use exist (`mil_ops`).

Limits: it shares coremltools' reader and its definitions of the operations, and says nothing about the device's own
kernels, where products may accumulate in float16, or about placement and speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """One operation: argument names -> names of values, and the slots it fills; constants carry their value."""

    kind: str
    inputs: Mapping[str, str | list[str]]
    outputs: list[Slot]
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Program:
    """A package's main function."""

    inputs: list[Slot]
    operations: list[Operation]
    outputs: list[str]

    def kinds(self) -> dict[str, int]:
        """Operations by kind, constants left out."""
        counts: dict[str, int] = {}
        for operation in self.operations:
            if operation.kind != "const":
                counts[operation.kind] = counts.get(operation.kind, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def unsupported(self) -> list[str]:
        """Kinds that the executor lacks."""
        return sorted(set(self.kinds()) - set(OPERATIONS))

    def largest_rank(self) -> int:
        """Largest rank of any value that an operation makes or reads; Core ML refuses ranks above 5.

        A palette of small weights is stored with two axes more than its weight has (6 for a convolution). Core ML
        unpacks it while loading, so that only the weight it stands for counts.
        """
        values = [value for operation in self.operations for value in operation.inputs.values()]
        read = {name for value in values for name in ([value] if isinstance(value, str) else value)}
        made = (slot for o in self.operations for slot in o.outputs if o.kind != "const" or slot.name in read)
        return max(len(slot.shape) for slot in made)


def execute(program: Program, inputs: Mapping[str, Tensor], mode: str = "fp32") -> dict[str, Tensor]:
    """Run a program.

    Args:
        program: From `packages.load_program`.
        inputs: Input name -> tensor of the declared shape.
        mode: "fp32" or "fp16", see the module's docstring.

    Returns:
        Output name -> float32 tensor.

    Raises:
        ExportError: An input is missing or misshapen, an operation is unknown, a result has another shape than
            declared, or an output is not finite (the first operation at fault is named).
    """
    if mode not in _MODES:
        raise ExportError(f"unknown mode {mode!r}; the modes are {', '.join(_MODES)}")
    if missing := program.unsupported():
        raise ExportError(
            f"the executor has no operation {', '.join(missing)}; add it to mobivid_core/coreml/mil_ops.py"
        )
    results = _run(program, inputs, mode)
    if not all(torch.isfinite(r).all() for r in results.values()):
        raise ExportError(
            f"the package's output is not finite in {mode} mode; the first non-finite operation is "
            + _first_non_finite(program, inputs, mode)
        )
    return results


def watch(program: Program, inputs: Mapping[str, Tensor], look: Callable[[Operation, Mapping], None]) -> None:
    """Run a program in float32 and show each operation, with all values alive, to `look`."""
    _run(program, inputs, "fp32", look)


def _run(
    program: Program, inputs: Mapping[str, Tensor], mode: str, watch: Callable[[Operation, Mapping], None] | None = None
) -> dict[str, Tensor]:
    """All operations in order; `watch` sees each with the values so far."""
    values: dict[str, object] = _given(program, inputs, mode)
    last_use = _last_uses(program)
    with torch.no_grad():
        for index, operation in enumerate(program.operations):
            _step(operation, values, mode)
            if watch is not None:
                watch(operation, values)
            for name in last_use.get(index, ()):
                del values[name]
    return {name: torch.as_tensor(values[name]).float() for name in program.outputs}


def _first_non_finite(program: Program, inputs: Mapping[str, Tensor], mode: str) -> str:
    """The first operation that makes infinities or NaN of finite operands, found by running again."""
    culprits: list[Operation] = []

    def watch(operation: Operation, values: Mapping[str, object]) -> None:
        if not culprits and not _outputs_finite(operation, values) and _all_finite(operation, values):
            culprits.append(operation)

    _run(program, inputs, mode, watch)
    return f"{culprits[0].kind} ({culprits[0].outputs[0].name})" if culprits else "an input"


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    return (torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected)).item()


def _given(program: Program, inputs: Mapping[str, Tensor], mode: str) -> dict[str, object]:
    """The program's inputs, checked, and rounded to their declared type in fp16 mode."""
    values: dict[str, object] = {}
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
    if operation.kind == "const":
        values[operation.outputs[0].name] = _constant(operation)
        return
    arguments = {}
    for name, source in operation.inputs.items():
        arguments[name] = [_load(values[s]) for s in source] if isinstance(source, list) else _load(values[source])
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


def _constant(operation: Operation) -> object:
    """Arrays as tensors of their stored type; text and scalars as Python values."""
    value, slot = operation.value, operation.outputs[0]
    if value is None or value.dtype.kind in "USO":
        return None if value is None else str(value.item())
    if value.ndim == 0 and not slot.shape:
        return value.item()
    return torch.from_numpy(np.ascontiguousarray(value))


def _load(value: object) -> object:
    """Operands in float32: half-precision weights and activations are widened where they are used."""
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _store(value: object, slot: Slot, mode: str) -> object:
    """Keep a result: rounded to float16 if so declared and so asked."""
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return value.half() if mode == "fp16" and slot.dtype == "fp16" else value.float()
    return value


def _last_uses(program: Program) -> dict[int, list[str]]:
    """Operation index -> values not needed after it, so that a large model fits in memory."""
    last: dict[str, int] = {}
    for index, operation in enumerate(program.operations):
        for slot in operation.outputs:
            last[slot.name] = index
        for source in operation.inputs.values():
            for name in source if isinstance(source, list) else [source]:
                last[name] = index
    frees: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in program.outputs:
            frees.setdefault(index, []).append(name)
    return frees


def _all_finite(operation: Operation, values: Mapping[str, object]) -> bool:
    """True if every floating-point operand is finite."""
    sources = [s for v in operation.inputs.values() for s in (v if isinstance(v, list) else [v])]
    return all(_finite(values[s]) for s in sources)


def _outputs_finite(operation: Operation, values: Mapping[str, object]) -> bool:
    """True if every floating-point result is finite."""
    return operation.kind == "const" or all(_finite(values[slot.name]) for slot in operation.outputs)


def _finite(value: object) -> bool:
    """True for anything but a floating-point tensor with infinities or NaN."""
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool(torch.isfinite(value).all())
