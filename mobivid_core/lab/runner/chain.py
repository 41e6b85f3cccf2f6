"""The chain of notebooks: what must run, in order, with progress, and a record of the run.

Ways to fail are all loud: a cell that raises, a kernel that dies, a registered result that was not
written, a full disk. Whatever finished before stays finished, and the next run goes on from there.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

import mobivid_core
from mobivid_core import artifacts
from mobivid_core.errors import ParameterError, RunError
from mobivid_core.files import clear_leftovers, disk_errors, sha256
from mobivid_core.lab.runner import cache, fingerprint
from mobivid_core.lab.runner.kernel import memory_watch, own_kernel
from mobivid_core.lab.runner.record import RunRecord, changed_results, expected_seconds
from mobivid_core.lab.runner.source import NotebookSource, own_folder, read_chain, resolve
from mobivid_core.paths import data_dir, figures_dir, notebooks_dir, runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.results import Results

SHOWN_LINES = 8


@dataclass(frozen=True)
class Chain:
    """The notebooks of one run."""

    profile: str
    only: Sequence[str] = ()  # numbers or names of the notebooks to run; empty means all
    given: Sequence[tuple[str, str]] = ()  # parameter name and text
    notebooks: Path = field(default_factory=notebooks_dir)  # also the kernels' working directory
    package: Path = Path(mobivid_core.__file__).parent  # whose modules are tracked
    data: Path = field(default_factory=data_dir)
    say: Callable[[str], None] = lambda line: print(line, flush=True)  # shows one line of progress

    def selected(self) -> list[NotebookSource]:
        """The notebooks asked for, in order; ParameterError where the profile or a notebook does not exist."""
        get_profile(self.profile)
        chain = read_chain(self.notebooks)
        for asked in self.only:
            if not any(asked in (n.number, n.name) for n in chain):
                raise ParameterError(f"no notebook {asked!r}; there are {', '.join(n.name for n in chain)}")
        return [n for n in chain if not self.only or n.number in self.only or n.name in self.only]

    def parts(self, notebook: NotebookSource, parameters: dict) -> dict[str, str]:
        """Hash of each part that `notebook` depends on, as things are now; others' results only where it reads them."""
        modules = fingerprint.module_files(notebook.syntax(), self.package)
        parts = {"code": fingerprint.digest(notebook.code()), "parameters": fingerprint.digest(parameters)}
        parts |= {f"module {name or self.package.name}": sha256(path) for name, path in modules.items()}
        for path in fingerprint.files_beside(modules.values()):
            parts[f"file {path.relative_to(self.package).as_posix()}"] = sha256(path)
        parts |= {f"data {name}": value for name, value in fingerprint.data_hashes(self.data, modules).items()}
        if folder := own_folder(notebook, parameters):
            parts["files of your folder"] = fingerprint.digest(fingerprint.folder_content(folder))
        parts |= {f"artefact {stage}": value for stage, value in self._artefacts_before(notebook).items()}
        parts |= {f"version of {name}": value for name, value in fingerprint.versions(fingerprint.COMPUTING).items()}
        if fingerprint.READS_RESULTS in modules:
            parts["results of other notebooks"] = fingerprint.digest(
                cache.content_of_others(notebook.name, self.profile)
            )
        return parts

    def _artefacts_before(self, notebook: NotebookSource) -> dict[str, str]:
        """Stage -> digest of what notebooks before this one made."""
        makers = dict(artifacts.MADE_BY)
        for other in read_chain(self.notebooks):
            stamp = cache.read(other.name, self.profile)
            makers |= dict.fromkeys(stamp.stages, other.name) if stamp else {}
        states = cache.stage_states(self.profile)
        return {s: state[2] for s, state in states.items() if makers[s] < notebook.name}

    def why(self, notebook: NotebookSource, parameters: dict) -> str:
        """Why `notebook` must run, in words; empty if it need not."""
        stamp = cache.read(notebook.name, self.profile)
        if stamp is None:
            return "not run yet"
        differences = fingerprint.changed(stamp.parts, self.parts(notebook, parameters))
        if differences:
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            return "changed: " + ", ".join(differences[:3]) + more
        return cache.lost(stamp, self.profile)

    def run(self, force: bool = False) -> RunRecord:
        """Run what must be run, or all with `force`; the record is also in `runs/<profile>/manifest.json`.

        ParameterError tells of an unknown profile, notebook or parameter, RunError of a notebook that failed, a missing
        result, a full disk, or another run that is going on.
        """
        selected = self.selected()
        parameters = resolve(selected, self.profile, self.given)
        folder = runs_dir(self.profile)
        lock = FileLock(folder / ".run.lock", timeout=0)
        try:
            with disk_errors(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except Timeout as error:
            why = f"another run of profile {self.profile!r} is going on in {folder}"
            raise RunError(f"{why}; wait for it, or set MOBIVID_RUNS to another folder") from error
        run_id = uuid.uuid4().hex[:12]
        try:
            artifacts.restore(self.profile)  # what a run that was killed left behind
            for leftover in (folder / "stamps", folder / "registered", folder, figures_dir(self.profile)):
                clear_leftovers(leftover)
            with own_kernel(run_id):
                return self._run(selected, parameters, run_id, force)
        finally:
            lock.release()

    def _run(self, selected: list[NotebookSource], parameters: list[dict], run_id: str, force: bool) -> RunRecord:
        record = RunRecord(self.profile, run_id)
        expected = [expected_seconds(n.name, self.profile) for n in selected]
        try:
            for i, (notebook, given) in enumerate(zip(selected, parameters, strict=True)):
                head = f"[{i + 1}/{len(selected)}] {notebook.name}"
                reason = "forced" if force else self.why(notebook, given)
                if not reason:
                    self.say(f"{head}  unchanged, skipped")
                    record.note(notebook.name, "cached", cache.read(notebook.name, self.profile))
                    continue
                self.say(f"{head}  running ({reason}){_estimate(expected[i:])}")
                record.note(notebook.name, "running")
                stamp = self._run_one(notebook, given, run_id)
                record.note(notebook.name, "run", stamp)
                self.say(f"{head}  done in {_minutes(stamp.seconds)}, peak {stamp.peak_mb / 1000:.1f} GB")
        except KeyboardInterrupt:
            record.end("interrupted")
            raise
        except (RunError, OSError):
            record.end("failed")
            raise
        record.end("complete")
        self.say(f"all {len(selected)} notebooks done; tables and figures are in {figures_dir(self.profile)}")
        for line in changed_results(figures_dir(self.profile)):
            self.say(line)
        return record

    def _run_one(self, notebook: NotebookSource, parameters: dict, run_id: str) -> cache.Stamp:
        target = cache.executed_path(notebook.name, self.profile)
        going, failed = target.with_suffix(".running.ipynb"), target.with_suffix(".failed.ipynb")
        before = cache.stage_states(self.profile)
        parts = self.parts(notebook, parameters)  # taken before: an edit during the run must count as a change
        began = time.monotonic()
        with disk_errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with memory_watch() as memory:
                self._execute(notebook, going, failed, parameters)
            seconds = time.monotonic() - began
            files, headlines = cache.collect(notebook, self.profile, run_id)
            going.replace(target)
            failed.unlink(missing_ok=True)
        ids = {result.result_id for result in notebook.registered()}
        for result in Results(notebook=notebook.name, profile=self.profile).forget_others(ids):
            self.say(f"      removed {result}, which this notebook no longer registers")
        after = cache.stage_states(self.profile)
        stamp = cache.Stamp(
            notebook.name, parts, run_id, round(seconds, 1), round(memory.peak_bytes / 1e6, 1), sha256(target),
            files, headlines, stages={s: state[2] for s, state in after.items() if before.get(s) != state},
        )  # fmt: skip
        cache.write(stamp, self.profile)
        return stamp

    def _execute(self, notebook: NotebookSource, going: Path, failed: Path, parameters: dict) -> None:
        """Run a notebook through papermill; the executed copy is saved after every cell."""
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        place = {"kernel_name": "python3", "cwd": str(self.notebooks), "progress_bar": sys.stderr.isatty()}
        try:
            papermill.execute_notebook(str(notebook.path), str(going), parameters, **place)
        except KeyboardInterrupt:
            # nbclient's open tasks would each print a traceback about the kernel that was stopped on purpose
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise
        except PapermillExecutionError as error:
            going.replace(failed)
            lines = error.source.rstrip().splitlines()
            shown = "\n".join(f"    {line}" for line in lines[:SHOWN_LINES])
            shown += "\n    ..." if len(lines) > SHOWN_LINES else ""
            index = error.cell_index - bool(parameters)  # in the reader's own copy, which has no injected cell
            raise RunError(
                f"{notebook.name} failed in cell {index} (counted from 0):\n{shown}\n{error.ename}: {error.evalue}\n"
                f"The notebook up to there is kept in {failed}. Fix it and run the same command again: it resumes."
            ) from error
        except DeadKernelError as error:
            if going.exists():
                going.replace(failed)
            raise RunError(
                f"the kernel of {notebook.name} died, most likely for want of memory (the manifest has its peak). "
                f"What it had done is in {failed}."
            ) from error


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _estimate(seconds: Sequence[float | None]) -> str:
    if not seconds or seconds[0] is None:
        return ", no estimate yet"
    known = [s for s in seconds if s is not None]
    return f", about {_minutes(seconds[0])}; {_minutes(sum(known))} to the end if none is cached"
