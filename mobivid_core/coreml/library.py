"""Lazy import of coremltools, without its harmless notices and progress bars."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from mobivid_core.coreml.fixes import register_converters
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
    register_converters()
    return ct


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without coremltools' progress bars, which flood a notebook's output."""
    from tqdm import tqdm

    modules = [m for name, m in list(sys.modules.items()) if name.startswith("coremltools.")]
    bars = [(m, name, vars(m)[name]) for m in modules for name in ("tqdm", "_tqdm") if name in vars(m)]
    silent = functools.partial(tqdm, disable=True)
    for module, name, _ in bars:
        setattr(module, name, silent)
    try:
        yield
    finally:
        for module, name, bar in bars:
            setattr(module, name, bar)
