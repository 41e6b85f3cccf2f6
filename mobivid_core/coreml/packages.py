"""Saved Core ML packages: size, deterministic hash, and the program read back as plain data.

Paper: none. Whatever is verified, timed or published is the saved package, never the converter's object in memory.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobivid_core.coreml.library import import_coremltools
from mobivid_core.coreml.mil import Operation, Program, Slot
from mobivid_core.errors import ExportError


@dataclass(frozen=True)
class Package:
    """A saved package."""

    path: Path  # the `.mlpackage` folder
    params: int  # of the converted module
    megabytes: float  # on disk, in 1e6 bytes
    ops: dict[str, int]  # operations by type, constants left out
    digest: str  # `package_hash`
    seconds: float  # wall time of conversion and saving


def save_package(model: object, path: Path, params: int, start: float) -> Package:
    """Save coremltools' model and describe what was saved; the work on it began at `start` on the performance counter.

    It is saved beside the target and moved into place, so that a failure leaves no half-written package.

    Raises:
        ExportError: The package cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.partial.mlpackage")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        model.save(str(draft))
    except (OSError, RuntimeError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or re.search("no space|disk full", str(error), re.I)
        free = shutil.disk_usage(path.parent).free / 1e6
        advice = "the disk is full" if full else "the package could not be written"
        raise ExportError(
            f"{advice} at {path} ({free:,.0f} MB free): {error}. Free space or take another folder"
        ) from error
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    kinds = Counter(operation.op_type for operation in model._mil_program.functions["main"].operations)
    ops = {kind: n for kind, n in kinds.items() if kind != "const" and not kind.startswith("constexpr_")}
    seconds = time.perf_counter() - start
    return Package(path, params, folder_bytes(path) / 1e6, ops, package_hash(path), seconds)


def folder_bytes(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def package_hash(path: Path | str) -> str:
    """SHA-256 of a package's program and weights, the same for the same model.

    `model.mlmodel` and `Manifest.json` differ from run to run (map order, random ids), so the program is serialised
    deterministically and the manifest is left out; so are the variable names' conversion-dependent debug attributes.
    """
    ct = import_coremltools()
    digest = hashlib.sha256(ct.utils.load_spec(str(path)).SerializeToString(deterministic=True))
    for weights in sorted(Path(path).rglob("weight.bin")):
        with weights.open("rb") as file:
            for block in iter(functools.partial(file.read, 1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def stored_program(path: Path) -> object:
    """coremltools' own form of a saved package's main function, constants still as they are stored."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel

    model = MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    return load(spec, spec.specificationVersion, model.weights_dir).functions["main"]


def load_program(path: Path) -> Program:
    """Read a saved package back: every operation, shape and weight, as plain data for `mil.execute`.

    Raises:
        ExportError: The folder is no readable ML Program package.
    """
    import_coremltools()
    try:
        main = stored_program(path)
    except Exception as error:  # coremltools raises bare exceptions of many kinds on a damaged package
        raise ExportError(f"{path} is no readable ML Program package: {error}") from error
    inputs = [Slot(name, *_type(var)) for name, var in main.inputs.items()]
    operations = [_operation(op) for op in main.operations]
    return Program(inputs, operations, [var.name for var in main.outputs])


def _operation(op: object) -> Operation:
    """One coremltools operation as plain data; constants carry their value."""
    outputs = [Slot(var.name, *_type(var)) for var in op.outputs]
    if op.op_type == "const":
        return Operation("const", {}, outputs, np.asarray(op.outputs[0].val))
    if op.op_type.startswith("constexpr_"):
        return Operation("const", {}, outputs, np.asarray(op.materialized_val_inference()))
    names = {}
    for name, var in op.inputs.items():
        if var is not None:
            names[name] = [v.name for v in var] if isinstance(var, (list, tuple)) else var.name
    return Operation(op.op_type, names, outputs, None)


def _type(var: object) -> tuple[tuple[int, ...], str]:
    """Declared shape and element type ("fp16", "fp32", "int32", "bool", "str") of a variable."""
    from coremltools.converters.mil.mil import types

    return tuple(int(n) for n in (var.shape or ())), types.builtin_to_string(var.dtype)
