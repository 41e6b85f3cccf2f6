"""Kernels of this environment, and their peak memory.

A kernel called python3 may point anywhere on a user's machine. The runner puts its own kernel of that
name first on Jupyter's path for as long as it runs, so that the interpreter that started it computes,
whether or not its environment was activated.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

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
            del os.environ["JUPYTER_PATH"]
            os.environ.update({"JUPYTER_PATH": before} if before is not None else {})


@contextlib.contextmanager
def memory_watch() -> Iterator[SimpleNamespace]:
    """Yields the peak resident memory of this process's children, as `peak_bytes`, polled from a thread.

    Shared pages count once a process, so a kernel that forks workers is overestimated rather than missed.
    """
    seen, stop, me = SimpleNamespace(peak_bytes=0), threading.Event(), psutil.Process()

    def poll() -> None:
        while not stop.wait(POLL_SECONDS):
            total = 0
            with contextlib.suppress(psutil.Error):
                for child in me.children(recursive=True):
                    with contextlib.suppress(psutil.Error):  # it may have ended since it was listed
                        total += child.memory_info().rss
            seen.peak_bytes = max(seen.peak_bytes, total)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
