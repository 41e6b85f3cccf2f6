"""Two editions of each master: gaps and checks for students, solutions and notes for the instructor."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mobivid_core.errors import ParameterError, TeachingError
from mobivid_core.lab.teaching.masters import Master, read_masters, tag_of
from mobivid_core.lab.teaching.placeholder import placeholder

EDITIONS = ("student", "instructor")
_LINK = re.compile(r"\[[^\]]*\]\(\.\./([^)]+)\)")
_HARMLESS = {".ipynb_checkpoints"}


def edition_of(master: Master, edition: str) -> NotebookNode:
    """One notebook, without outputs.

    Args:
        master: Its master.
        edition: "student" or "instructor".

    Raises:
        ParameterError: Unknown edition.
    """
    check_edition(edition)
    checks = {exercise.solution: master.cells[exercise.check].source for exercise in master.exercises}
    made = []
    for index, cell in enumerate(master.cells):
        source, tag = cell.source, tag_of(cell)
        if edition == "student":
            if tag == "instructor":
                continue
            if tag == "solution":
                source, tag = placeholder(source, checks[index]), "answer"
        if cell.cell_type == "markdown":
            source = _LINK.sub(r"`notebooks/\1`", source)  # an edition may lie anywhere
        metadata = {"tags": [tag]} if tag else {}
        new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
        made.append(new(source, metadata=metadata, id=cell.id))
    notebook = new_notebook(cells=made)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "mobivid": {"edition": edition, "sha256": _sources_hash(notebook)},
    }
    return notebook


def write_editions(edition: str, out: Path, masters: Path | None = None) -> list[Path]:
    """Write one edition of every master.

    Files that this function wrote and nobody has worked in are replaced; anything else in the folder is refused.

    Args:
        edition: "student" or "instructor".
        out: Folder; made if missing.
        masters: Folder of the masters; None takes the project's.

    Returns:
        The files written.

    Raises:
        ParameterError: Unknown edition.
        TeachingError: A master is malformed, or `out` holds other files.
    """
    check_edition(edition)
    notebooks = {out / f"{master.name}.ipynb": edition_of(master, edition) for master in read_masters(masters)}
    _check_folder(out, edition, set(notebooks))
    out.mkdir(parents=True, exist_ok=True)
    for path, notebook in notebooks.items():
        nbformat.write(notebook, path)
    return list(notebooks)


def check_edition(edition: str) -> None:
    """Refuse an unknown edition.

    Raises:
        ParameterError: It is unknown.
    """
    if edition not in EDITIONS:
        raise ParameterError(f"unknown edition {edition!r}; the editions are {' and '.join(EDITIONS)}")


def _check_folder(out: Path, edition: str, ours: set[Path]) -> None:
    if out.exists() and not out.is_dir():
        raise TeachingError(f"{out} is a file; give a folder that is empty or does not exist yet")
    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if path.name in _HARMLESS:
            continue
        if path not in ours:
            raise TeachingError(
                f"{out} holds other files ({path.name}); give a folder that is empty or does not exist yet"
            )
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
    return stamp.get("edition") == edition and stamp.get("sha256") == _sources_hash(notebook)


def _sources_hash(notebook: NotebookNode) -> str:
    parts = [f"{cell.cell_type}\n{cell.source}" for cell in notebook.cells]
    return hashlib.sha256("\n\x00".join(parts).encode()).hexdigest()
