"""Run a notebook in a kernel of this environment and record its peak memory.

A kernel called python3 may point anywhere on a user's machine. The runner puts its own kernel of that
name first on Jupyter's path for as long as it runs, so that the interpreter that started it computes,
whether or not its environment was activated.
"""

from __future__ import annotations

import contextlib
import json
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

POLL_SECONDS = 0.1


def kernel_environment(run_id: str) -> dict[str, str]:
    """Variables for the kernel: the run's id, no downloads, and glibc's allocator where it is used."""
    from mobivid_core.show.results import RUN_ID_VARIABLE

    variables = {RUN_ID_VARIABLE: run_id, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    if platform.libc_ver()[0] == "glibc":
        variables |= GLIBC_ENVIRONMENT
    return variables


@contextlib.contextmanager
def own_kernel(run_id: str) -> Iterator[None]:
    """While active, the kernel name python3 means the interpreter that runs this."""
    spec = {
        # The kernel warns about its local socket on every start; real errors still show.
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
        "display_name": "Python 3",
        "language": "python",
        "env": kernel_environment(run_id),
    }
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="mobivid-kernel-") as folder:
        place = Path(folder) / "kernels" / "python3"
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
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
            self.peak_bytes = max(self.peak_bytes, _children_bytes(me))


def _children_bytes(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it may have ended since it was listed
                total += child.memory_info().rss
    return total


def execute(source: Path, output: Path, parameters: dict, folder: Path, progress: bool) -> None:
    """Run one notebook through papermill.

    Args:
        source: The notebook.
        output: Where the executed copy goes, saved after every cell.
        parameters: Values for its parameters cell.
        folder: Working directory of the kernel.
        progress: Show papermill's bar of cells.

    Raises:
        papermill.PapermillExecutionError: A cell raised.
    """
    import papermill

    try:
        papermill.execute_notebook(
            str(source),
            str(output),
            parameters=parameters,
            kernel_name="python3",
            cwd=str(folder),
            progress_bar=progress,
            log_output=False,
        )
    except KeyboardInterrupt:
        # nbclient's open tasks would each print a traceback about the kernel that was stopped on purpose
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
