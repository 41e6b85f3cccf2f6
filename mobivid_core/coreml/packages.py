"""Saved Core ML packages: size, deterministic hash, and the program read back as plain data.

Paper: none. Whatever is verified, timed or published is the saved package, never the converter's object in memory.
coremltools is imported here, lazily and without its harmless notices.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from mobivid_core.coreml.mil import Operation, Program, Slot
from mobivid_core.errors import ExportError

#: Known notices that say nothing about the package: no Core ML runtime off macOS; untested library versions (each
#: package is verified against torch instead); scikit-learn is only needed for k-means palettes; an embedding's
#: padding index, which it ignores, concerns gradients only.
_HARMLESS = (
    "Proxy: No module named",
    "has not been tested with coremltools",
    "Disabling scikit-learn",
    "does not support any inputs besides the weights and indices",
)


def import_coremltools() -> ModuleType:
    """coremltools; an ExportError if it is not installed, or its numpy pin is violated."""
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
    return ct


def _not_harmless(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _HARMLESS)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without coremltools' progress bars, which flood a notebook's output."""
    from tqdm import tqdm

    loud = tqdm.__init__
    tqdm.__init__ = functools.partialmethod(loud, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = loud


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

    It is saved beside the target and moved into place, so that a failure (an ExportError) leaves no half-written
    package.
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
    """Read a saved package back, as plain data for `mil.execute`; an ExportError if it is no readable ML Program."""
    import_coremltools()
    try:
        main = stored_program(path)
    except Exception as error:  # coremltools raises bare exceptions of many kinds on a damaged package
        raise ExportError(f"{path} is no readable ML Program package: {error}") from error
    constants, operations = {}, []
    for op in main.operations:
        if op.op_type == "const":
            constants[op.outputs[0].name] = np.asarray(op.outputs[0].val)
        elif op.op_type.startswith("constexpr_"):  # a smaller weight, unpacked
            constants[op.outputs[0].name] = np.asarray(op.materialized_val_inference())
        else:
            names = {}
            for name, var in op.inputs.items():
                if var is not None:
                    names[name] = [v.name for v in var] if isinstance(var, (list, tuple)) else var.name
            operations.append(Operation(op.op_type, names, [_slot(var, var.name) for var in op.outputs]))
    inputs = [_slot(var, name) for name, var in main.inputs.items()]
    return Program(inputs, constants, operations, [var.name for var in main.outputs])


def _slot(var: object, name: str) -> Slot:
    """A variable's declared shape and element type."""
    from coremltools.converters.mil.mil import types

    return Slot(name, tuple(int(n) for n in (var.shape or ())), types.builtin_to_string(var.dtype))
