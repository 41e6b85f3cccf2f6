"""Weight compression of packages: 8-bit integers and palettes, the same or by layer; activations stay float16.

Paper: none (it deploys float16, data/paper claim C26). coremltools' own optimisers rewrite the saved package, on any
machine and without training or calibration data. Tensors below 2,048 values keep float16.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mobivid_core.coreml.library import import_coremltools, quiet_bars
from mobivid_core.coreml.packages import Package, save_package
from mobivid_core.errors import ExportError, ParameterError

#: Bits -> how the weights are stored.
SCHEMES = {
    8: "integers, one scale an output channel",
    6: "palette of 64 values a tensor, by k-means",
    4: "palette of 16 values a tensor, by k-means",
}


def compress(package: Package, bits: int, path: Path) -> Package:
    """Write a copy of a float16 package with 8, 6 or 4 bits a weight, see `SCHEMES`.

    Raises:
        ParameterError: Another number of bits.
        ExportError: coremltools refuses, or the disk is full.
    """
    if bits not in SCHEMES:
        raise ParameterError(f"weights of {bits} bits are not offered; choose {', '.join(map(str, SCHEMES))}")
    import_coremltools()
    import coremltools.optimize.coreml as optimize

    if bits == 8:
        integers = optimize.OpLinearQuantizerConfig("linear_symmetric", dtype="int8", granularity="per_channel")
        return _rewritten(package, path, optimize.linear_quantize_weights, global_config=integers)
    palettes = optimize.OpPalettizerConfig("kmeans", nbits=bits)
    return _rewritten(package, path, optimize.palettize_weights, global_config=palettes)


def compress_mixed(package: Package, bits: Mapping[str, int], path: Path) -> Package:
    """Write a copy of a float16 package with a palette of so many bits for each named layer; others keep float16.

    Raises:
        ExportError: coremltools refuses, or the disk is full.
    """
    import_coremltools()
    import coremltools.optimize.coreml as optimize

    layers = {name: optimize.OpPalettizerConfig("kmeans", nbits=b) for name, b in bits.items()}
    return _rewritten(package, path, optimize.palettize_weights, op_name_configs=layers)


def _rewritten(package: Package, path: Path, optimiser: Callable, **config: object) -> Package:
    """A copy of a package after one of coremltools' weight optimisers, which takes `config`."""
    from coremltools.models import MLModel
    from coremltools.optimize.coreml import OptimizationConfig

    start = time.perf_counter()
    try:
        with quiet_bars():
            model = MLModel(str(package.path), skip_model_load=True)
            smaller = optimiser(model, OptimizationConfig(**config))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ExportError(f"{package.path.name} cannot be stored with smaller weights: {error}") from error
    return save_package(smaller, path, package.params, start)
