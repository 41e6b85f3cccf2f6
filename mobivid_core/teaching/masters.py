"""Masters: one py:percent file a notebook, whose tags say what is task, solution, self-check and teacher's note.

An exercise is a markdown cell tagged `exercise`, any given cells, one code cell tagged `solution` and one tagged `check`.
Cells tagged `instructor` may stand anywhere. Nothing but the check may need what a solution defines: so an unsolved
notebook runs to its end and says what is open, instead of failing again and again.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from mobivid_core.errors import TeachingError
from mobivid_core.paths import notebooks_dir
from mobivid_core.teaching.placeholder import bound_names, used_names

TAGS = ("exercise", "solution", "check", "instructor")


@dataclass(frozen=True)
class Exercise:
    """One exercise: its title and the places of its cells in the master."""

    title: str
    task: int
    solution: int
    check: int


@dataclass(frozen=True)
class Master:
    """A master that passed all checks.

    Attributes:
        path: The file.
        cells: Its cells.
        exercises: In order.
    """

    path: Path
    cells: tuple[NotebookNode, ...]
    exercises: tuple[Exercise, ...]

    @property
    def name(self) -> str:
        """The file's stem, e.g. "ex03_sensitivity"."""
        return self.path.stem


def masters_dir() -> Path:
    """Where the masters lie."""
    return notebooks_dir() / "teaching"


def tag_of(cell: NotebookNode) -> str | None:
    """The teaching tag of a cell, if it has one."""
    return next((tag for tag in cell.metadata.get("tags", []) if tag in TAGS), None)


def read_masters(folder: Path | None = None) -> list[Master]:
    """All masters of a folder (default: the project's), in order.

    Raises:
        TeachingError: There is none, or one is malformed.
    """
    folder = folder or masters_dir()
    paths = sorted(folder.glob("ex[0-9][0-9]_*.py"))
    if not paths:
        raise TeachingError(f"no masters (such as ex03_sensitivity.py) in {folder}")
    return [read_master(path) for path in paths]


def read_master(path: Path) -> Master:
    """Read and check one master.

    Raises:
        TeachingError: jupytext is missing, a cell is not Python, tags do not match, or a cell outside a check needs what
            a solution defines.
    """
    try:
        import jupytext
    except ImportError as error:
        raise TeachingError(
            "reading the masters needs jupytext: pip install -e '.[dev]' (or run `make env`)"
        ) from error
    cells = tuple(jupytext.read(path, fmt="py:percent").cells)
    for index, cell in enumerate(cells):
        if cell.cell_type == "code":
            try:
                ast.parse(cell.source)
            except SyntaxError as error:
                raise TeachingError(f"{path.name}, cell {index}, is not valid Python: {error}") from error
    master = Master(path, cells, tuple(_exercises(path, cells)))
    _check_names(master)
    return master


def _exercises(path: Path, cells: tuple[NotebookNode, ...]) -> list[Exercise]:
    found: list[Exercise] = []
    tagged = [(i, tag) for i, cell in enumerate(cells) if (tag := tag_of(cell)) and tag != "instructor"]
    if not tagged:
        raise TeachingError(f"{path.name} has no exercise: tag a markdown cell `exercise`")
    for start in range(0, len(tagged), 3):
        group = tagged[start : start + 3]
        title = cells[group[0][0]].source.splitlines()[0].lstrip("# ")
        tags = [tag for _, tag in group]
        if tags != ["exercise", "solution", "check"]:
            raise TeachingError(
                f"{path.name}: {title!r} has the tags {', '.join(tags)}; each exercise needs one cell tagged `exercise`, "
                "then one `solution`, then one `check`"
            )
        kinds = [cells[i].cell_type for i, _ in group]
        if kinds != ["markdown", "code", "code"]:
            raise TeachingError(f"{path.name}: {title!r} needs its task in markdown, its solution and check in code")
        found.append(Exercise(title, *(i for i, _ in group)))
    return found


def _check_names(master: Master) -> None:
    """Refuse masters whose student edition would fail with a NameError or say nothing."""
    solved: dict[str, str] = {}
    for exercise in master.exercises:
        bound = bound_names(master.cells[exercise.solution].source)
        solved |= dict.fromkeys(bound, exercise.title)
        if not set(bound) & used_names(master.cells[exercise.check].source):
            raise TeachingError(
                f"{master.path.name}: the check of {exercise.title!r} reads nothing that its solution defines"
            )
    for index, cell in enumerate(master.cells):
        if cell.cell_type == "code" and tag_of(cell) is None:
            needed = sorted(used_names(cell.source) & set(solved))
            if needed:
                raise TeachingError(
                    f"{master.path.name}, cell {index}, needs {needed[0]!r}, which the solution of {solved[needed[0]]!r} "
                    "defines: students run it unsolved. Move it into the check, or define the name before the exercise"
                )
