"""Run one handed-in notebook in a process of its own, with limits on time, memory and files, and without a network.

The process limits itself (`resource`), starts the kernel, which inherits the limits, and leaves the verdicts in a file.
Sockets of the file system join the two, so that both can lie in a network namespace with nothing in it (`unshare -n`,
on Linux where the system allows it). These limits stop accidents and simple tricks, not a determined attacker.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import nbformat
import psutil
from nbformat import NotebookNode

from mobivid_core.errors import TeachingError
from mobivid_core.lab.teaching.verdict import VERDICT_MIME

_REQUEST, _RESULT, _LOG, _HOME = "request.json", "result.json", "log.txt", "home"
_STARTUP_S = 300


@dataclass(frozen=True)
class Limits:
    """What one notebook may use: seconds, memory of a process (private data; on Linux), size of a file it writes."""

    cell_s: float = 120
    total_s: float = 900
    memory_gb: float = 8
    file_gb: float = 1


@cache
def without_network() -> tuple[str, ...]:
    """Words in front of a command that take its network away; none where the system does not allow it."""
    for words in (("unshare", "-n"), ("unshare", "-r", "-n")):  # the second needs no privilege, where it is allowed
        try:
            if subprocess.run([*words, "true"], capture_output=True, check=False, timeout=20).returncode == 0:
                return words
        except (OSError, subprocess.TimeoutExpired):
            continue
    return ()


def run_confined(notebook: NotebookNode, checks: list[int], limits: Limits) -> list[dict[str, str]]:
    """Run a notebook in a process of its own: status and message of the cells whose places are in `checks`.

    TeachingError where it took too long, its kernel died, or it could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mobivid-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        request = {"notebook": notebook, "checks": checks, "limits": asdict(limits)}
        (folder / _REQUEST).write_text(json.dumps(request), encoding="utf-8")
        (folder / "work").mkdir()
        command = [*without_network(), sys.executable, "-c", f"from {__name__} import work; work()", str(folder)]
        with (folder / _LOG).open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder / "work", env=_environment(folder), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(limits.total_s)
            except subprocess.TimeoutExpired as error:
                raise TeachingError(f"the notebook took longer than {limits.total_s:g} s in all") from error
            finally:
                _kill_tree(process)
        return _result(folder, process.returncode)


def _result(folder: Path, status: int) -> list[dict[str, str]]:
    try:
        made = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit status {status}"
        raise TeachingError(f"the notebook could not be run: {why:.200}") from error
    if "problem" in made:
        raise TeachingError(made["problem"])
    return made["verdicts"]


def _environment(folder: Path) -> dict[str, str]:
    """The environment of the process: nothing of the user's own set-up of IPython and Jupyter, nothing downloaded."""
    package = str(Path(__file__).resolve().parents[3])
    before = [str(Path(p).resolve()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    jupyter = ("JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    own = dict.fromkeys(("IPYTHONDIR", *jupyter), str(folder / _HOME))
    # glibc would reserve an arena a thread, which counts as data
    fixed = {"HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "2", "MPLBACKEND": "Agg", "TMPDIR": str(folder / "work")}
    return {**os.environ, **own, **fixed, "PYTHONPATH": os.pathsep.join([package, *before])}


def _kill_tree(process: subprocess.Popen) -> None:
    """End a process and everything it started: a kernel has a session of its own."""
    with contextlib.suppress(psutil.Error):  # it has ended
        own = psutil.Process(process.pid)
        for member in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                member.kill()
    process.wait()


def _confine(limits: Limits) -> None:
    """Limit this process and those it starts."""
    wanted = {resource.RLIMIT_DATA: limits.memory_gb, resource.RLIMIT_FSIZE: limits.file_gb, resource.RLIMIT_CORE: 0}
    for kind, gb in wanted.items():
        value, hard = int(gb * 2**30), resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # a system without this limit
            resource.setrlimit(kind, (value, value))


def _execute(folder: Path) -> dict:
    from ipykernel.kernelspec import write_kernel_spec
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    request = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    limits = Limits(**request["limits"])
    notebook = nbformat.from_dict(request["notebook"])
    _confine(limits)
    # this interpreter, whatever else is called python3 on the machine
    write_kernel_spec(folder / _HOME / "kernels" / "python3", extra_arguments=["--log-level=ERROR"])
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "ipc"))
    client = NotebookClient(notebook, km=manager, allow_errors=True, timeout=limits.cell_s, startup_timeout=_STARTUP_S)
    try:
        client.execute()
    except CellTimeoutError:
        running = next((c for c in notebook.cells if c.cell_type == "code" and not _finished(c)), None)
        first = f": {running.source.strip().splitlines()[0]:.60}" if running and running.source.strip() else ""
        return {"problem": f"a cell took longer than {limits.cell_s:g} s{first}"}
    except DeadKernelError:
        return {"problem": "its kernel died: a cell ended the process, or took more memory than is allowed"}
    except MemoryError:
        return {"problem": "its outputs took more memory than is allowed"}
    return {"verdicts": [_verdict_of(notebook.cells[place]) for place in request["checks"]]}


def _finished(cell: NotebookNode) -> bool:
    """Whether nbclient saw the end of a code cell (one without source it passes over)."""
    return not cell.source.strip() or "shell.execute_reply" in cell.metadata.get("execution", {})


def _verdict_of(cell: NotebookNode) -> dict[str, str]:
    for output in cell.outputs:
        if VERDICT_MIME in output.get("data", {}):
            status = output["data"][VERDICT_MIME]["status"]
            return {"status": status, "message": output["data"]["text/plain"]}
    errors = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
    return {"status": "open", "message": errors[0] if errors else "the check did not run"}


def work() -> None:
    """What the process does: run what the folder that it is given asks for, leave the result there."""
    folder = Path(sys.argv[1])
    (folder / _RESULT).write_text(json.dumps(_execute(folder)), encoding="utf-8")
