"""Grade handed-in notebooks: `mobivid grade FOLDER --out GRADES.csv`.

Each notebook of the folder is run with the master's own check cells in place of the student's, in a process of its own
with limits (`confined`). This runs the students' code: do it where you would run any stranger's program. Whatever is
wrong with a hand-in is one row of the table, and the others are graded all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from mobivid_core.command import CommandParser, above_zero, given_path, run_command
from mobivid_core.errors import TeachingError
from mobivid_core.lab.teaching.confined import Limits, run_confined, without_network
from mobivid_core.lab.teaching.hand_ins import Found, find_checks, find_hand_ins, kin, read_hand_in
from mobivid_core.lab.teaching.masters import Master, read_masters

COLUMNS = ("file", "exercise", "status", "message")
#: Status of a row about a file as a whole.
NOT_GRADED = "not graded"
_LONGEST = 300
Row = dict[str, str]


def grade_notebook(handed_in: NotebookNode, master: Master, timeout: float = Limits.cell_s) -> list[Row]:
    """Run a student's notebook with the master's checks.

    Args:
        handed_in: The student's notebook; its check cells are found as `find_checks` says.
        master: Its master.
        timeout: Seconds a cell may take.

    Returns:
        One row an exercise: exercise, status ("right", "wrong", "open"), message.

    Raises:
        TeachingError: A check cell was deleted, a cell took too long, or the kernel died.
    """
    return _graded(handed_in, master, Limits(cell_s=timeout))


def _graded(handed_in: NotebookNode, master: Master, limits: Limits) -> list[Row]:
    places = find_checks(handed_in, master)
    for place, exercise in zip(places, master.exercises, strict=True):
        handed_in.cells[place].source = master.cells[exercise.check].source
    verdicts = run_confined(handed_in, places, limits)
    return [{"exercise": e.title, **verdict} for e, verdict in zip(master.exercises, verdicts, strict=True)]


def grade_folder(
    folder: Path, limits: Limits | None = None, take: Callable[[Row], None] = lambda row: None
) -> pd.DataFrame:
    """Grade all notebooks below a folder that are named after a master, e.g. `ana/ex02_flow.ipynb`.

    Args:
        folder: Hidden files and folders in it are passed over.
        limits: What a notebook may use.
        take: Gets each row as soon as it is known.

    Returns:
        One row an exercise: file, exercise, status, message; one row a file that could not be graded (`NOT_GRADED`) or
        that looks like a hand-in under another name.

    Raises:
        TeachingError: No folder, or neither a hand-in nor anything like one in it.
    """
    folder, masters = Path(folder), read_masters()
    found = find_hand_ins(folder, masters)
    if not found.hand_ins and not found.stray:
        raise TeachingError(
            f"no handed-in notebooks in {folder}: their names have to hold a master's, such as ex02_flow"
        )
    rows = []
    for row in _rows(folder, found, masters, limits or Limits()):
        rows.append(row)
        take(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(folder: Path, found: Found, masters: Sequence[Master], limits: Limits) -> Iterator[Row]:
    for path, master in found.hand_ins:
        try:
            notebook = read_hand_in(path)
            graded = _graded(notebook, master, limits)
        except TeachingError as error:
            graded = [{"exercise": "", "status": NOT_GRADED, "message": str(error)}]
            with contextlib.suppress(TeachingError):
                other = kin(read_hand_in(path), masters)
                if other not in (None, master):
                    graded[0]["message"] += f" (its cells are those of {other.name})"
        yield from (_row(path, folder, **row) for row in graded)
    for path, why in found.stray:
        yield _row(path, folder, "", NOT_GRADED, why)


def _row(path: Path, folder: Path, exercise: str, status: str, message: str) -> Row:
    """One line a row, of text that can be written whatever a file's name or a student's message holds."""
    values = (path.relative_to(folder).as_posix(), exercise, status, message)
    clean = (" ".join(str(v).encode("utf-8", "backslashreplace").decode().split())[:_LONGEST] for v in values)
    return dict(zip(COLUMNS, clean, strict=True))


@contextlib.contextmanager
def _table(path: Path | None) -> Iterator[Callable[[Row], None]]:
    """What takes rows: prints each, and writes it to `path` at once, so that a long grading can be stopped."""
    with contextlib.ExitStack() as stack:
        writer = stream = None
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()

        def take(row: Row) -> None:
            if writer and stream:
                writer.writerow(row)
                stream.flush()
            print("  ".join(value for value in row.values() if value), flush=True)

        yield take


def _run(options: argparse.Namespace) -> None:
    limits = Limits(options.timeout, options.total, options.memory)
    found = find_hand_ins(options.folder, read_masters())  # refused before an earlier table is written over
    if not found.hand_ins and not found.stray:
        grade_folder(options.folder)
    if found.hidden:
        print(f"note: {found.hidden} hidden file(s), copies of an editor or a Mac, passed over", file=sys.stderr)
    if not without_network():
        print("note: this system does not let notebooks be cut off from the network", file=sys.stderr)
    with _table(options.out) as take:
        grade_folder(options.folder, limits, take)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = CommandParser("grade", __doc__)
    parser.add_argument("folder", type=given_path, help="handed-in notebooks, in any subfolders")
    parser.add_out("write the table there as well, row by row", file=True, metavar="CSV")
    parser.add_argument("--timeout", type=above_zero, default=Limits.cell_s, help="seconds a cell may take (120)")
    parser.add_argument("--total", type=above_zero, default=Limits.total_s, help="seconds a notebook may take (900)")
    parser.add_argument("--memory", type=above_zero, default=Limits.memory_gb, help="GiB a notebook may take (8)")
    return run_command(_run, parser, argv, interrupted="interrupted: the rows that are written are kept")
