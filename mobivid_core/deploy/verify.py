"""Verification of saved packages: their program, run with torch, against the model they were made from.

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

from mobivid_core.deploy.coreml import Package, convert, load_program
from mobivid_core.deploy.graphs import Graph, round_weights
from mobivid_core.deploy.mil import Program, execute, relative_error
from mobivid_core.errors import ExportError

#: Largest relative error (norm of the difference over norm) allowed in each mode, for the miniature models.
GATES = {"fp32": 2e-6, "fp16": 2e-3}
#: A package above the fp16 gate passes if its error is below this multiple of torch's own in half precision.
HALF_FACTOR = 1.5


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
    """

    package: Package
    fp32_error: float
    fp16_error: float
    casts: int
    largest_rank: int
    torch_half_error: float | None = None

    @property
    def fp16_limit(self) -> float:
        """Largest float16 error that passes."""
        return max(GATES["fp16"], HALF_FACTOR * (self.torch_half_error or 0.0))

    @property
    def passed(self) -> bool:
        """True if both errors are within the gates and no value has too high a rank."""
        return self.fp32_error < GATES["fp32"] and self.fp16_error < self.fp16_limit and self.largest_rank <= 5

    def as_dict(self) -> dict[str, object]:
        """Row of a table."""
        package = self.package
        return {
            "package": package.path.stem, "params": package.params, "MB": round(package.megabytes, 2),
            "ops": sum(package.ops.values()), "casts": self.casts, "max rank": self.largest_rank,
            "convert s": round(package.seconds, 1), "fp32 error": self.fp32_error, "fp16 error": self.fp16_error,
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
    with torch.no_grad():
        expected = graph.module(*inputs.values())
    errors = {mode: relative_error(execute(program, inputs, mode)[graph.outputs[0]], expected) for mode in GATES}
    half = None if errors["fp16"] < GATES["fp16"] else _torch_half_error(graph, inputs, expected)
    casts, rank = program.kinds().get("cast", 0), program.largest_rank()
    return Verification(package, errors["fp32"], errors["fp16"], casts, rank, half)


def _torch_half_error(graph: Graph, inputs: dict[str, Tensor], expected: Tensor) -> float:
    """Relative error of the model run by torch in float16: what the format costs, whoever computes."""
    module = copy.deepcopy(graph.module).half()
    with torch.no_grad():
        halves = [t.half() if t.is_floating_point() else t for t in inputs.values()]
        return relative_error(module(*halves).float(), expected)


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
    """Copy a package and zero `count` bytes in the middle of its weights: a check of the check itself."""
    remove(target)
    shutil.copytree(package, target)
    weights = next(Path(target).rglob("weight.bin"))
    data = bytearray(weights.read_bytes())
    start = len(data) // 2 // 64 * 64  # weights are aligned to 64 bytes
    data[start : start + count] = bytes(count)
    weights.write_bytes(data)
    return target


def remove(package: Path) -> None:
    """Delete a package folder if it is there."""
    shutil.rmtree(package, ignore_errors=True)
