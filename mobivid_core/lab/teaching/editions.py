"""Make the exercise notebooks: `mobivid teaching --edition student --out FOLDER`.

Each master has two editions: gaps and checks for students, solutions and notes for the instructor. Exit codes: 0 done,
2 a bad argument, a malformed master or a folder that holds other files.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mobivid_core.command import CommandParser, run_command
from mobivid_core.errors import ParameterError, TeachingError
from mobivid_core.lab.runner.source import KERNEL
from mobivid_core.lab.teaching.masters import Master, bound_names, read_masters, tag_of, used_names

EDITIONS = ("student", "instructor")
GAP = "# Your code here. Then run this cell, and the one below: it checks your answer."
_LINK = re.compile(r"\[[^\]]*\]\(\.\./([^)]+)\)")


def edition_of(master: Master, edition: str) -> NotebookNode:
    """The "student" or "instructor" edition of a master, without outputs."""
    checks = {exercise.solution: master.cells[exercise.check].source for exercise in master.exercises}
    made, student = [], edition == "student"
    for index, cell in enumerate(master.cells):
        source, tag = cell.source, tag_of(cell)
        if student and tag == "instructor":
            continue
        if student and tag == "solution":
            source, tag = placeholder(source, checks[index]), "answer"
        if cell.cell_type == "markdown":
            source = _LINK.sub(r"`notebooks/\1`", source)  # an edition may lie anywhere
        metadata = {"tags": [tag]} if tag else {}
        new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
        made.append(new(source, metadata=metadata, id=cell.id))
    stamp = {"edition": edition, "sha256": _sources_hash(made)}
    return new_notebook(cells=made, metadata={"kernelspec": KERNEL, "mobivid": stamp})


def placeholder(solution: str, check: str) -> str:
    """The cell that a student fills in, for the names of the solution that the check reads.

    It has `name = ...` for each value, signature and docstring for each function; running it unsolved raises
    `Unsolved`, at the cell's last line for values and when it is called for functions.
    """
    wanted = used_names(check)
    functions = {n.name: n for n in ast.parse(solution).body if isinstance(n, ast.FunctionDef)}
    names = [name for name in bound_names(solution) if name in wanted]
    values = [name for name in names if name not in functions]
    needed = [*(["require"] if values else []), *(["unsolved"] if len(values) < len(names) else [])]
    parts = [f"from mobivid_core.lab.teaching.verdict import {', '.join(needed)}\n\n{GAP}"]
    parts += ["\n" + _gap(functions[name], solution.splitlines()) + "\n" for name in names if name in functions]
    parts += [f"{name} = ..." for name in values]
    if values:
        given = ", ".join(f"{name}={name}" for name in values)
        parts.append(f"require({given})  # stops here while an answer is missing")
    return "\n".join(parts).rstrip()


def _gap(function: ast.FunctionDef, lines: list[str]) -> str:
    """Signature and docstring of a function over a body that raises."""
    first = function.body[0]
    last = first.end_lineno if ast.get_docstring(function) is not None else first.lineno - 1
    return "\n".join([*lines[function.lineno - 1 : last], f'    unsolved("{function.name}")'])


def write_editions(edition: str, out: Path) -> list[Path]:
    """Write one edition of every master into a folder, which is made if missing; returns the files.

    Files that this function wrote and nobody has worked in are replaced; anything else there is a TeachingError.
    """
    if edition not in EDITIONS:
        raise ParameterError(f"unknown edition {edition!r}; the editions are {' and '.join(EDITIONS)}")
    notebooks = {out / f"{master.name}.ipynb": edition_of(master, edition) for master in read_masters()}
    _check_folder(out, edition, set(notebooks))
    out.mkdir(parents=True, exist_ok=True)
    for path, notebook in notebooks.items():
        nbformat.write(notebook, path)
    return list(notebooks)


def _check_folder(out: Path, edition: str, ours: set[Path]) -> None:
    another = "give a folder that is empty or does not exist yet"
    if out.exists() and not out.is_dir():
        raise TeachingError(f"{out} is a file; {another}")
    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if path.name == ".ipynb_checkpoints":
            continue
        if path not in ours:
            raise TeachingError(f"{out} holds other files ({path.name}); {another}")
        if not _untouched(path, edition):
            raise TeachingError(
                f"{path} is not this edition as it was written: it may hold somebody's work. Move it away, or give "
                "another folder"
            )


def _untouched(path: Path, edition: str) -> bool:
    """Whether a notebook's cells are still those of the edition that was written (outputs do not count)."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError):
        return False
    stamp = notebook.metadata.get("mobivid", {})
    return stamp.get("edition") == edition and stamp.get("sha256") == _sources_hash(notebook.cells)


def _sources_hash(cells: list[NotebookNode]) -> str:
    parts = [f"{cell.cell_type}\n{cell.source}" for cell in cells]
    return hashlib.sha256("\n\x00".join(parts).encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser("teaching", __doc__)
    parser.add_argument("--edition", required=True, help=" or ".join(EDITIONS))
    parser.add_out("an empty or new folder", required=True, metavar="FOLDER")
    return run_command(_write, parser, argv)


def _write(options: argparse.Namespace) -> None:
    written = write_editions(options.edition, options.out)
    print(f"{len(written)} notebooks, {options.edition} edition, in {options.out}")
