"""Verify saved packages: execute their program with torch and compare with the original model.

Paper: none. The gates are ours: relative error below 2e-6 with float32 arithmetic (weights rounded to float16 on both
sides, so what is left is conversion), below 2e-3 when each value is rounded to float16 as on a phone. A deep trained
model may miss the second because of float16 itself: then torch's own half-precision run of the same model is the
yardstick, and the package may be at most 1.5 times as far off.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mobivid_core.coreml.convert import compress, convert
from mobivid_core.coreml.graphs import Graph
from mobivid_core.coreml.mil import Program, execute, relative_error
from mobivid_core.coreml.packages import Package, load_program

#: Largest relative error (norm of the difference over norm) allowed in each mode, for the miniature models.
GATES = {"fp32": 2e-6, "fp16": 2e-3}
#: A package above the fp16 gate passes if its error is below this multiple of torch's own in half precision.
HALF_FACTOR = 1.5
#: First bytes of the header of each weight in weight.bin.
_BLOB_SENTINEL = bytes.fromhex("efbeadde")


@dataclass(frozen=True)
class Verification:
    """How far a package is from its model, as relative errors.

    With fewer `bits` than 16 the errors are the cost of the smaller weights, and no gate applies to them.
    """

    package: Package
    fp32_error: float  # with float32 arithmetic
    fp16_error: float  # with float16 storage between operations
    casts: int  # type conversions in the program
    largest_rank: int  # of a value; Core ML allows 5
    torch_half_error: float | None = None  # of torch's own float16 run; only measured where the fp16 gate is missed
    bits: float = 16  # of a weight, on average

    @property
    def fp16_limit(self) -> float:
        """Largest float16 error that passes."""
        return max(GATES["fp16"], HALF_FACTOR * (self.torch_half_error or 0.0))

    @property
    def passed(self) -> bool:
        """True if both errors are within the gates (16-bit weights) and no value has too high a rank."""
        exact = self.bits < 16 or (self.fp32_error < GATES["fp32"] and self.fp16_error < self.fp16_limit)
        return exact and self.largest_rank <= 5

    def as_dict(self) -> dict[str, object]:
        """Row of a table."""
        package = self.package
        return {
            "package": package.path.stem, "params": package.params, "MB": round(package.megabytes, 2),
            "ops": sum(package.ops.values()), "casts": self.casts, "max rank": self.largest_rank,
            "convert s": round(package.seconds, 1), "fp32 error": self.fp32_error, "fp16 error": self.fp16_error,
            "fp16 gate": self.fp16_limit if self.bits == 16 else None,
            "gates": "passed" if self.passed else "FAILED", "sha256": package.digest[:12],
        }  # fmt: skip


def round_weights(module: nn.Module) -> nn.Module:
    """Round parameters to float16 in place (kept as float32), as the package stores them; returns the module."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return module


def rounded_inputs(graph: Graph) -> dict[str, Tensor]:
    """The graph's example inputs as a float16 package receives them."""
    return {n: t.half().float() if t.is_floating_point() else t for n, t in graph.inputs.items()}


def convert_and_verify(graph: Graph, folder: Path) -> Verification:
    """Convert a graph, read the saved package back, and run it in both modes.

    The graph's weights are rounded to float16 in place first: pass a copy of a model that is needed unrounded. An
    ExportError if the conversion is refused, or the program read back cannot be run.
    """
    round_weights(graph.module.eval())
    inputs = rounded_inputs(graph)
    package = convert(graph.module, inputs, graph.outputs, folder / f"{graph.name}.mlpackage")
    return verify(graph, package)


def verify(graph: Graph, package: Package, program: Program | None = None, bits: float = 16) -> Verification:
    """Run a saved package, read back from disk, or `program` instead, in both modes and compare it with its graph.

    The graph's weights must be rounded to float16 already; `bits` are those of the package's weights, on average.
    """
    program = load_program(package.path) if program is None else program
    inputs = rounded_inputs(graph)
    expected = _outputs(graph.module, inputs.values())
    fp32, fp16 = (_largest_error([execute(program, inputs, m)[n] for n in graph.outputs], expected) for m in GATES)
    missed = bits == 16 and fp16 >= GATES["fp16"]
    half = _torch_half_error(graph, expected) if missed else None
    casts = sum(operation.kind == "cast" for operation in program.operations)
    return Verification(package, fp32, fp16, casts, program.largest_rank(), half, bits)


def compress_and_verify(graph: Graph, verified: Verification, bits: int, folder: Path) -> Verification:
    """Store a verified package's weights in fewer bits, read the result back, and run it in both modes.

    Its errors are against the graph with float16 weights: what the smaller weights cost in one call.
    """
    package = compress(verified.package, bits, folder / f"{graph.name}_{bits}bit.mlpackage")
    return verify(graph, package, bits=bits)


def _outputs(module: nn.Module, inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """What torch computes."""
    with torch.no_grad():
        made = module(*inputs)
    return made if isinstance(made, tuple) else (made,)


def _largest_error(made: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    return max(relative_error(ours.float(), theirs) for ours, theirs in zip(made, expected, strict=True))


def _torch_half_error(graph: Graph, expected: tuple[Tensor, ...]) -> float:
    """Relative error of the model run by torch in float16: what the format costs, whoever computes."""
    halves = (t.half() if t.is_floating_point() else t for t in graph.inputs.values())
    return _largest_error(_outputs(copy.deepcopy(graph.module).half(), halves), expected)


def corrupted_copy(package: Path, target: Path, count: int = 512) -> Path:
    """Copy a package and zero up to `count` bytes in the middle of its largest weight: a check of the check itself."""
    remove(target)
    shutil.copytree(package, target)
    weights = next(target.rglob("weight.bin"))
    data = bytearray(weights.read_bytes())
    # Each weight follows a 64-byte header that begins with a sentinel; a damaged header would not even be read.
    headers = [i for i in range(64, len(data), 64) if data[i : i + 4] == _BLOB_SENTINEL]
    start, end = max(zip(headers, [*headers[1:], len(data)], strict=True), key=lambda span: span[1] - span[0])
    middle, half = (start + 64 + end) // 2, min(count, end - start - 64) // 2
    data[middle - half : middle + half] = bytes(2 * half)
    weights.write_bytes(data)
    return target


def remove(package: Path) -> None:
    """Delete a package folder if it is there."""
    shutil.rmtree(package, ignore_errors=True)
