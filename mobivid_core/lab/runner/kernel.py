"""Run a notebook in a kernel of this environment and record its peak memory.

A kernel called python3 may point anywhere on a user's machine. The runner puts its own kernel of that
name first on Jupyter's path for as long as it runs, so that the interpreter that started it computes,
whether or not its environment was activated.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from mobivid_core.memory import GLIBC_ENVIRONMENT
from mobivid_core.show.results import RUN_ID_VARIABLE

POLL_SECONDS = 0.1


@contextlib.contextmanager
def own_kernel(run_id: str) -> Iterator[None]:
    """While active, the kernel name python3 means the interpreter that runs this; it knows the run's id."""
    from ipykernel.kernelspec import write_kernel_spec

    allocator = GLIBC_ENVIRONMENT if platform.libc_ver()[0] == "glibc" else {}
    environment = {RUN_ID_VARIABLE: run_id, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", **allocator}
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="mobivid-kernel-") as folder:
        # The kernel warns about its local socket on every start; real errors still show.
        write_kernel_spec(Path(folder) / "kernels" / "python3", {"env": environment}, ["--log-level=ERROR"])
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


class MemoryWatch:
    """Peak resident memory of this process's children, polled from a thread.

    Shared pages count once a process, so a kernel that forks workers is overestimated rather than missed.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(POLL_SECONDS):
            total = 0
            with contextlib.suppress(psutil.Error):
                for child in me.children(recursive=True):
                    with contextlib.suppress(psutil.Error):  # it may have ended since it was listed
                        total += child.memory_info().rss
            self.peak_bytes = max(self.peak_bytes, total)


def execute(source: Path, output: Path, parameters: dict, folder: Path) -> None:
    """Run a notebook through papermill in a working folder; the executed copy is saved after every cell."""
    import papermill

    try:
        place = {"kernel_name": "python3", "cwd": str(folder)}
        papermill.execute_notebook(str(source), str(output), parameters, progress_bar=sys.stderr.isatty(), **place)
    except KeyboardInterrupt:
        # nbclient's open tasks would each print a traceback about the kernel that was stopped on purpose
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
