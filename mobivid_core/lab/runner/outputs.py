"""Copy outputs of executed notebooks back into `notebooks/`, so that they can be read without running.

Each code cell then carries the hash of the source that made its output; a test compares the two, so
that an output can never silently belong to another version of its cell. Times, widget states, progress bars
and this machine's paths are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mobivid_core.errors import ParameterError, RunError
from mobivid_core.files import read_json, write_json, write_text
from mobivid_core.lab import readme
from mobivid_core.lab.runner import cache
from mobivid_core.lab.runner.chain import Chain
from mobivid_core.lab.runner.record import EXPECTED
from mobivid_core.lab.runner.source import INJECTED_TAG, KERNEL, cell_hash
from mobivid_core.paths import project_root

SOURCE_KEY = "mobivid"
WIDGET = "application/vnd.jupyter.widget-view+json"
COMMITTED_PROFILE = "laptop"


def check_committable(chain: Chain) -> None:
    """Only unaltered default runs are committed: ParameterError for another profile or changed parameters."""
    if chain.profile != COMMITTED_PROFILE or chain.given:
        raise ParameterError(
            f"--commit-outputs keeps what a reader gets by default: profile {COMMITTED_PROFILE!r} and no -p, got "
            f"profile {chain.profile!r}" + (" and changed parameters" if chain.given else "")
        )


def commit_outputs(chain: Chain) -> None:
    """Copy the outputs of the selected notebooks in place, and what each cost, and update the README."""
    path = project_root() / "figures" / EXPECTED
    known = read_json(path, {})
    for notebook in chain.selected():
        copy_outputs(notebook.path, cache.executed_path(notebook.name, chain.profile))
        chain.say(f"{notebook.name}: outputs copied into {notebook.path}")
        seconds = cache.read(notebook.name, chain.profile).seconds
        # Rounded: an estimate, and a file that does not change with every run.
        known.setdefault(chain.profile, {})[notebook.name] = max(10, round(seconds, -1))
    write_json(path, known)
    readme.update()


def copy_outputs(source: Path, executed: Path) -> None:
    """Put the outputs of `executed` into the cells of `source` that made them; RunError where their code differs."""
    if not executed.is_file():
        raise RunError(f"{source.stem} has no executed copy at {executed}; run it first")
    target = nbformat.read(source, as_version=4)
    made = [c for c in nbformat.read(executed, as_version=4).cells if INJECTED_TAG not in c.metadata.get("tags", [])]
    ours = [c for c in target.cells if c.cell_type == "code"]
    theirs = [c for c in made if c.cell_type == "code"]
    if [c.source.rstrip() for c in ours] != [c.source.rstrip() for c in theirs]:
        raise RunError(f"the code of {source.stem} changed since {executed} was made; run it again")
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        mine.outputs = _clean_outputs(other.outputs, number)
        mine.execution_count = number
        mine.metadata[SOURCE_KEY] = {"source_sha256": cell_hash(mine.source)}
        mine.metadata.pop("execution", None)
        mine.metadata.pop("papermill", None)
    target.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    write_text(source, nbformat.writes(target) + "\n")


def _clean_outputs(outputs: list[NotebookNode], number: int) -> list[NotebookNode]:
    """Outputs without what belongs to a machine or a session; text that follows on the same stream is joined."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if WIDGET in output.get("data", {}):
            continue  # a widget's state is not saved; a static output stands beside each
        output.pop("transient", None)
        if output.output_type == "stream":
            output.text = _anonymous(output.text)
        for kind, value in output.get("data", {}).items():
            if isinstance(value, str) and kind.startswith("text/"):
                output.data[kind] = _anonymous(value)
        if output.output_type == "execute_result":
            output.execution_count = number
        last = kept[-1] if kept else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = _settled(output.text)
    return [o for o in kept if o.output_type != "stream" or o.text.strip()]


def _anonymous(text: str) -> str:
    """Text without this machine's folders and object addresses."""
    for folder, name in ((str(project_root()), "."), (sys.prefix, ".venv"), (str(Path.home()), "~")):
        if len(folder) > 1:
            text = text.replace(folder + "/", f"{name}/").replace(folder, name)
    text = re.sub(r"\S*/site-packages/", "", text)
    return re.sub(r" at 0x[0-9a-f]{6,}", "", text)


def _settled(text: str) -> str:
    """What a terminal shows in the end: carriage returns overwrite, finished bars are dropped."""
    lines = [line.rstrip("\r").split("\r")[-1] for line in text.split("\n")]
    return "\n".join(line for line in lines if not re.search(r"\d+%\|.*\|", line))
