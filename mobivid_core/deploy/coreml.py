"""Core ML packages on any machine: convert, save, hash, and read back.

With `coreml_fixes`, the only module that imports coremltools (`benchmark` drives its remote part on a Mac).

Paper: the on-device section (float16 Core ML, data/paper claim C26). A torch module is captured with `torch.export`,
decomposed with an empty table (coremltools' own operators are faster than the default decompositions), and converted
to an ML Program for iOS 18 with float16 compute.
What coremltools converts wrongly is refused or replaced in `coreml_fixes`.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mobivid_core.deploy.coreml_fixes import refuse_dropped_keywords, register_converters
from mobivid_core.deploy.mil import Operation, Program, Slot
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


@dataclass(frozen=True)
class Package:
    """A saved package.

    Attributes:
        path: The `.mlpackage` folder.
        params: Parameters of the converted module.
        megabytes: Bytes on disk / 1e6.
        ops: Operations by type, constants left out.
        digest: Deterministic SHA-256 of program and weights.
        seconds: Wall time of capture, conversion and saving.
    """

    path: Path
    params: int
    megabytes: float
    ops: dict[str, int]
    digest: str
    seconds: float


class _DropHarmless(logging.Filter):
    """Lets every record pass but the known notices."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True to keep the record."""
        return not any(text in record.getMessage() for text in _HARMLESS)


def import_coremltools() -> ModuleType:
    """coremltools, without its known harmless notices.

    Raises:
        ExportError: It is not installed, or its numpy pin is violated.
    """
    if tuple(int(n) for n in np.__version__.split(".")[:2]) >= (2, 4):
        raise ExportError(f"coremltools 9 fails with numpy {np.__version__}; install numpy>=2.3,<2.4")
    # A filter on a logger does not reach its children, and coremltools logs from many.
    logger = logging.getLogger("coremltools")
    if not any(isinstance(f, _DropHarmless) for f in logger.filters):
        logger.addFilter(_DropHarmless())
    try:
        import coremltools as ct
    except ImportError as error:
        raise ExportError(f"coremltools cannot be imported ({error}); `pip install coremltools` installs it") from error
    register_converters()
    return ct


def capture(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """Capture a module as a graph that coremltools converts faithfully.

    Raises:
        ExportError: The graph holds a keyword argument that the converter would drop.
    """
    import_coremltools()
    with torch.no_grad(), warnings.catch_warnings():
        # A deprecation of torch by torch, inside export; nothing a caller could change.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        program = torch.export.export(module.eval(), tuple(inputs)).run_decompositions({})
    refuse_dropped_keywords(program)
    return program


def convert(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path, *, keep_float32: bool = False
) -> Package:
    """Convert a float32 module to a float16 ML Program (iOS 18) and save it.

    Args:
        module: Called with `inputs` in order; float32 parameters (a halved model fails in coremltools).
        inputs: Name -> example tensor; float tensors become float16 inputs, integers int32.
        outputs: Names of the outputs in order.
        path: `.mlpackage` folder to write; replaced if it exists.
        keep_float32: Keep float32 compute, to tell conversion errors from rounding.

    Raises:
        ExportError: The graph is refused, an operator is unsupported, or the disk is full.
    """
    start = time.perf_counter()
    ct = import_coremltools()
    captured = capture(module, tuple(inputs.values()))
    real = np.float32 if keep_float32 else np.float16
    kinds = {name: real if tensor.is_floating_point() else np.int32 for name, tensor in inputs.items()}
    precision = ct.precision.FLOAT32 if keep_float32 else ct.precision.FLOAT16
    try:
        with _quiet_bars():
            model = ct.convert(
                captured,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=precision,
                inputs=[ct.TensorType(name=n, shape=tuple(t.shape), dtype=kinds[n]) for n, t in inputs.items()],
                outputs=[ct.TensorType(name=n, dtype=real) for n in outputs],
                skip_model_load=True,
            )
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise ExportError(f"coremltools cannot convert {type(module).__name__}: {error}") from error
    _save(model, Path(path))
    params = sum(p.numel() for p in module.parameters())
    ops: dict[str, int] = {}
    for operation in model._mil_program.functions["main"].operations:
        if operation.op_type != "const":
            ops[operation.op_type] = ops.get(operation.op_type, 0) + 1
    seconds = time.perf_counter() - start
    return Package(Path(path), params, folder_bytes(path) / 1e6, ops, package_hash(path), seconds)


def folder_bytes(path: Path | str) -> int:
    """Bytes of all files below a folder."""
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


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


def load_program(path: Path | str) -> Program:
    """Read a saved package back: every operation, shape and weight, as plain data for `mil.execute`.

    Raises:
        ExportError: The folder is no readable ML Program package.
    """
    import_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel

    try:
        model = MLModel(str(path), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
    except Exception as error:  # coremltools raises bare exceptions of many kinds on a damaged package
        raise ExportError(f"{path} is no readable ML Program package: {error}") from error
    main = program.functions["main"]
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

    name = types.builtin_to_string(var.dtype)
    return tuple(int(n) for n in (var.shape or ())), name


def _save(model: object, path: Path) -> None:
    """Save beside the target and move into place, so that a failure leaves no half-written package."""
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


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Without coremltools' progress bars, which flood a notebook's output."""
    from tqdm import tqdm

    modules = [module for name, module in list(sys.modules.items()) if name.startswith("coremltools.converters.")]
    bars = [(m, name, vars(m)[name]) for m in modules for name in ("tqdm", "_tqdm") if name in vars(m)]
    silent = functools.partial(tqdm, disable=True)
    for module, name, _ in bars:
        setattr(module, name, silent)
    try:
        yield
    finally:
        for module, name, bar in bars:
            setattr(module, name, bar)
