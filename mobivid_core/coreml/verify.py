"""Verify saved packages: execute their program with torch and compare with the original model.

Paper: none. The gates are ours: relative error below 2e-6 with float32 arithmetic (weights rounded to float16 on both
sides, so what is left is conversion), below 2e-3 when each value is rounded to float16 as on a phone. A deep trained
model may miss the second because of float16 itself: then torch's own half-precision run of the same model is the
yardstick, and the package may be at most 1.5 times as far off.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.coreml.convert import convert
from mobivid_core.coreml.graphs import Graph, round_weights
from mobivid_core.coreml.mil import Program, execute, relative_error
from mobivid_core.coreml.packages import Package, load_program
from mobivid_core.coreml.weight_bits import compress
from mobivid_core.errors import ExportError

#: Largest relative error (norm of the difference over norm) allowed in each mode, for the miniature models.
GATES = {"fp32": 2e-6, "fp16": 2e-3}
#: A package above the fp16 gate passes if its error is below this multiple of torch's own in half precision.
HALF_FACTOR = 1.5
#: First bytes of the header of each weight in weight.bin.
_BLOB_SENTINEL = bytes.fromhex("efbeadde")


@dataclass(frozen=True)
class Verification:
    """How far a package is from its model.

    Attributes:
        package: The package.
        fp32_error: Relative error with float32 arithmetic.
        fp16_error: Relative error with float16 storage between operations.
        casts: Type conversions in the program.
        largest_rank: Largest rank of a value (Core ML allows 5).
        torch_half_error: Relative error of torch's own float16 run; only measured where the fp16 gate is missed.
        bits: Bits of a weight, on average. Below 16 the errors are the cost of the smaller weights, and no gate
            applies to them.
    """

    package: Package
    fp32_error: float
    fp16_error: float
    casts: int
    largest_rank: int
    torch_half_error: float | None = None
    bits: float = 16

    @property
    def fp16_limit(self) -> float:
        """Largest float16 error that passes."""
        return max(GATES["fp16"], HALF_FACTOR * (self.torch_half_error or 0.0))

    @property
    def passed(self) -> bool:
        """True if both errors are within the gates (16-bit weights) and no value has too high a rank."""
        if self.bits < 16:
            return self.largest_rank <= 5
        return self.fp32_error < GATES["fp32"] and self.fp16_error < self.fp16_limit and self.largest_rank <= 5

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


def rounded_inputs(graph: Graph) -> dict[str, Tensor]:
    """The graph's example inputs as a float16 package receives them."""
    return {n: t.half().float() if t.is_floating_point() else t for n, t in graph.inputs.items()}


def convert_and_verify(graph: Graph, folder: Path) -> Verification:
    """Convert a graph, read the saved package back, and run it in both modes.

    The graph's weights are rounded to float16 in place first: pass a copy of a model that is needed unrounded.

    Raises:
        ExportError: The conversion is refused, or the program read back cannot be run.
    """
    round_weights(graph.module.eval())
    inputs = rounded_inputs(graph)
    package = convert(graph.module, inputs, graph.outputs, Path(folder) / f"{graph.name}.mlpackage")
    return verify(graph, package)


def verify(graph: Graph, package: Package, program: Program | None = None) -> Verification:
    """Compare a saved package (or a given program) with its graph, whose weights must be rounded already."""
    program = load_program(package.path) if program is None else program
    inputs = rounded_inputs(graph)
    expected = _expected(graph, inputs)
    errors = {mode: _largest_error(program, inputs, expected, mode) for mode in GATES}
    half = None if errors["fp16"] < GATES["fp16"] else _torch_half_error(graph, inputs, expected)
    casts, rank = program.kinds().get("cast", 0), program.largest_rank()
    return Verification(package, errors["fp32"], errors["fp16"], casts, rank, half)


def compress_and_verify(graph: Graph, verified: Verification, bits: int, folder: Path) -> Verification:
    """Store a verified package's weights in fewer bits, read the result back, and run it in both modes.

    Its errors are against the graph with float16 weights: what the smaller weights cost in one call.

    Raises:
        ParameterError: Not a number of bits that is offered.
        ExportError: coremltools refuses, or the program read back cannot be run.
    """
    package = compress(verified.package, bits, Path(folder) / f"{graph.name}_{bits}bit.mlpackage")
    return verify_smaller(graph, package, bits)


def verify_smaller(graph: Graph, package: Package, bits: float) -> Verification:
    """Read a package with smaller weights back and run it in both modes; `bits` a weight, on average."""
    program, inputs = load_program(package.path), rounded_inputs(graph)
    expected = _expected(graph, inputs)
    errors = [_largest_error(program, inputs, expected, mode) for mode in GATES]
    return Verification(package, *errors, program.kinds().get("cast", 0), program.largest_rank(), bits=bits)


def _expected(graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Output name -> what torch computes in float32."""
    with torch.no_grad():
        made = graph.module(*inputs.values())
    return dict(zip(graph.outputs, made if isinstance(made, tuple) else (made,), strict=True))


def _largest_error(program: Program, inputs: dict[str, Tensor], expected: dict[str, Tensor], mode: str) -> float:
    """Largest relative error of any output."""
    made = execute(program, inputs, mode)
    return max(relative_error(made[name], value) for name, value in expected.items())


def _torch_half_error(graph: Graph, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative error of the model run by torch in float16: what the format costs, whoever computes."""
    module = copy.deepcopy(graph.module).half()
    with torch.no_grad():
        made = module(*[t.half() if t.is_floating_point() else t for t in inputs.values()])
    results = made if isinstance(made, tuple) else (made,)
    return max(relative_error(r.float(), e) for r, e in zip(results, expected.values(), strict=True))


def require(verification: Verification) -> Verification:
    """Pass a verification on if its gates hold.

    Raises:
        ExportError: Names the package, its errors and the gates.
    """
    if not verification.passed:
        v = verification
        raise ExportError(
            f"{v.package.path.name} differs from its model: relative error {v.fp32_error:.1e} in float32 (gate "
            f"{GATES['fp32']:.0e}), {v.fp16_error:.1e} in float16 (gate {v.fp16_limit:.1e}), largest rank "
            f"{v.largest_rank} (limit 5). Do not ship this package"
        )
    return verification


def corrupted_copy(package: Path, target: Path, count: int = 512) -> Path:
    """Copy a package and zero up to `count` bytes in the middle of its largest weight: a check of the check itself."""
    remove(target)
    shutil.copytree(package, target)
    weights = next(Path(target).rglob("weight.bin"))
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
