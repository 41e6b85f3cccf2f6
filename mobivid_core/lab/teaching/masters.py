"""Masters: one notebook without outputs for each main notebook, whose cell tags say what each cell is for.

An exercise is a markdown cell tagged `exercise`, any given cells, one code cell tagged `solution`, one tagged `check`.
Cells tagged `instructor` may stand anywhere. Nothing but the check may need what a solution defines: so each exercise
can be worked on without the ones before it.
"""

from __future__ import annotations

import ast
import symtable
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from mobivid_core.errors import RunError, TeachingError
from mobivid_core.lab.runner.source import NotebookSource, read_notebook
from mobivid_core.paths import notebooks_dir

#: Tags of an exercise's cells, in order, with the cells' types.
_EXERCISE = {"exercise": "markdown", "solution": "code", "check": "code"}
TAGS = (*_EXERCISE, "instructor")


@dataclass(frozen=True)
class Exercise:
    """One exercise: its title and the places of its cells in the master."""

    title: str
    task: int
    solution: int
    check: int


@dataclass(frozen=True)
class Master(NotebookSource):
    """A master that passed all checks, with its exercises in order; named like "ex03_sensitivity"."""

    exercises: tuple[Exercise, ...]


def tag_of(cell: NotebookNode) -> str | None:
    """The teaching tag of a cell, if it has one."""
    return next((tag for tag in cell.metadata.get("tags", []) if tag in TAGS), None)


def read_masters(folder: Path | None = None) -> list[Master]:
    """All masters of a folder (default: the project's), in order; TeachingError where there is none."""
    folder = folder or notebooks_dir() / "teaching"
    paths = sorted(folder.glob("ex[0-9][0-9]_*.ipynb"))
    if not paths:
        raise TeachingError(f"no masters (such as ex03_sensitivity.ipynb) in {folder}")
    return [read_master(path) for path in paths]


def read_master(path: Path) -> Master:
    """Read one master; TeachingError where it is none, is no Python, has wrong tags, or needs a solution's names."""
    try:
        source = read_notebook(path)
        source.syntax()
    except RunError as error:
        raise TeachingError(str(error)) from error
    master = Master(path, source.cells, tuple(_exercises(path, source.cells)))
    _check_names(master)
    return master


def _exercises(path: Path, cells: tuple[NotebookNode, ...]) -> list[Exercise]:
    found: list[Exercise] = []
    for cell in cells:
        if unknown := [tag for tag in cell.metadata.get("tags", []) if tag not in TAGS]:
            raise TeachingError(f"{path.name} has a cell tagged {unknown[0]!r}; the tags are {', '.join(TAGS)}")
    tagged = [(i, tag) for i, cell in enumerate(cells) if (tag := tag_of(cell)) and tag != "instructor"]
    if not tagged:
        raise TeachingError(f"{path.name} has no exercise: tag a markdown cell `exercise`")
    for start in range(0, len(tagged), 3):
        group = tagged[start : start + 3]
        title = cells[group[0][0]].source.splitlines()[0].lstrip("# ")
        if [(tag, cells[i].cell_type) for i, tag in group] != [*_EXERCISE.items()]:
            raise TeachingError(
                f"{path.name}: {title!r} has the tags {', '.join(tag for _, tag in group)}; each exercise needs one "
                "cell tagged `exercise`, in markdown, then one `solution`, then one `check`, both code"
            )
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
        given = cell.cell_type == "code" and tag_of(cell) is None
        if given and (needed := sorted(used_names(cell.source) & set(solved))):
            raise TeachingError(
                f"{master.path.name}, cell {index}, needs {needed[0]!r}, which the solution of {solved[needed[0]]!r} "
                "defines: students run it unsolved. Move it into the check, or define the name before the exercise"
            )


def bound_names(source: str) -> list[str]:
    """Functions and variables that a cell's own statements bind, in order; imports and nested blocks do not count."""
    found: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return list(dict.fromkeys(found))


def used_names(source: str) -> set[str]:
    """Names that a cell reads from the notebook; variables of its own comprehensions and functions do not count."""
    tables, used = [symtable.symtable(source, "<cell>", "exec")], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return used
