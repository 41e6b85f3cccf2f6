"""Torch modules to Core ML packages, on any machine.

Paper: the on-device section (float16 Core ML, data/paper claim C26). A torch module is captured with `torch.export`,
decomposed with an empty table (coremltools' own operators are faster than the default decompositions), and converted
to an ML Program for iOS 18 with float16 compute. What coremltools converts wrongly is refused or replaced in `library`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mobivid_core.coreml.library import import_coremltools, quiet_bars, refuse_dropped_keywords
from mobivid_core.coreml.packages import Package, save_package
from mobivid_core.errors import ExportError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


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


def convert(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path) -> Package:
    """Convert a float32 module to a float16 ML Program (iOS 18) and save it.

    Args:
        module: Called with `inputs` in order; float32 parameters (a halved model fails in coremltools).
        inputs: Name -> example tensor; float tensors become float16 inputs, integers int32.
        outputs: Names of the outputs in order.
        path: `.mlpackage` folder to write; replaced if it exists.

    Raises:
        ExportError: The graph is refused, an operator is unsupported, or the disk is full.
    """
    start = time.perf_counter()
    ct = import_coremltools()
    captured = capture(module, tuple(inputs.values()))
    kinds = {name: np.float16 if tensor.is_floating_point() else np.int32 for name, tensor in inputs.items()}
    try:
        with quiet_bars():
            model = ct.convert(
                captured,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=ct.precision.FLOAT16,
                inputs=[ct.TensorType(name=n, shape=tuple(t.shape), dtype=kinds[n]) for n, t in inputs.items()],
                outputs=[ct.TensorType(name=n, dtype=np.float16) for n in outputs],
                skip_model_load=True,
            )
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise ExportError(f"coremltools cannot convert {type(module).__name__}: {error}") from error
    return save_package(model, path, sum(p.numel() for p in module.parameters()), start)
