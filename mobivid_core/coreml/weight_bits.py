"""Weight compression of packages: 8-bit integers, 6-bit and 4-bit palettes; activations stay float16.

Paper: none (it deploys float16, data/paper claim C26); the question that follows from it is what smaller weights would
cost. coremltools' own optimisers do the work on the saved package, on any machine. Tensors below 2,048 values keep
float16. No training or calibration data is involved.
"""

from __future__ import annotations

import time
from pathlib import Path

from mobivid_core.coreml.library import import_coremltools, quiet_bars
from mobivid_core.coreml.packages import Package, operation_counts, package_of, save_package
from mobivid_core.errors import ExportError, ParameterError

#: Bits -> how the weights are stored.
SCHEMES = {
    8: "integers, one scale an output channel",
    6: "palette of 64 values a tensor, by k-means",
    4: "palette of 16 values a tensor, by k-means",
}


def compress(package: Package, bits: int, path: Path | str) -> Package:
    """Write a copy of a package with fewer bits a weight.

    Args:
        package: A saved float16 package.
        bits: 8, 6 or 4, see `SCHEMES`.
        path: `.mlpackage` folder to write; replaced if it exists.

    Raises:
        ParameterError: Another number of bits.
        ExportError: coremltools refuses, or the disk is full.
    """
    if bits not in SCHEMES:
        raise ParameterError(f"weights of {bits} bits are not offered; choose {', '.join(map(str, SCHEMES))}")
    start = time.perf_counter()
    ct = import_coremltools()
    import coremltools.optimize.coreml as optimize

    if bits == 8:
        config = optimize.OpLinearQuantizerConfig("linear_symmetric", dtype="int8", granularity="per_channel")
    else:
        config = optimize.OpPalettizerConfig("kmeans", nbits=bits)
    apply = optimize.linear_quantize_weights if bits == 8 else optimize.palettize_weights
    try:
        with quiet_bars():
            model = ct.models.MLModel(str(package.path), skip_model_load=True)
            smaller = apply(model, optimize.OptimizationConfig(global_config=config))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ExportError(f"{package.path.name} cannot be stored with {bits}-bit weights: {error}") from error
    save_package(smaller, Path(path))
    return package_of(path, package.params, operation_counts(smaller), time.perf_counter() - start)
