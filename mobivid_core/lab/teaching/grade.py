"""Grade handed-in notebooks: `mobivid grade FOLDER --out GRADES.csv`.

Each notebook of the folder is run with the master's own check cells in place of the student's, in a process of its own
with limits (`confined`). This runs the students' code: do it where you would run any stranger's program. Whatever is
wrong with a hand-in is one row of the table, and the others are graded all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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


def grade_notebook(handed_in: NotebookNode, master: Master, limits: Limits) -> list[Row]:
    """Run a student's notebook with the master's checks: a row an exercise (exercise, status, message).

    TeachingError tells of a check cell that was deleted, a cell that took too long, or a kernel that died.
    """
    places = find_checks(handed_in, master)
    for place, exercise in zip(places, master.exercises, strict=True):
        handed_in.cells[place].source = master.cells[exercise.check].source
    verdicts = run_confined(handed_in, places, limits)
    return [{"exercise": e.title, **verdict} for e, verdict in zip(master.exercises, verdicts, strict=True)]


def graded(folder: Path, found: Found, masters: Sequence[Master], limits: Limits) -> Iterator[Row]:
    """Grade what was found in a folder: a row an exercise, or one that says why a file was not graded."""
    for path, master in found.hand_ins:
        try:
            rows = grade_notebook(read_hand_in(path), master, limits)
        except TeachingError as error:
            rows = [{"exercise": "", "status": NOT_GRADED, "message": str(error)}]
            with contextlib.suppress(TeachingError):
                other = kin(read_hand_in(path), masters)
                if other not in (None, master):
                    rows[0]["message"] += f" (its cells are those of {other.name})"
        yield from (_clean(path.relative_to(folder), row) for row in rows)
    for path, why in found.stray:
        yield _clean(path.relative_to(folder), {"exercise": "", "status": NOT_GRADED, "message": why})


def _clean(file: Path, row: Row) -> Row:
    """A row in one line of text that can be written whatever a file's name or a student's message holds."""
    values = {"file": file.as_posix(), **row}
    return {k: " ".join(v.encode("utf-8", "backslashreplace").decode().split())[:_LONGEST] for k, v in values.items()}


def _run(options: argparse.Namespace) -> None:
    masters = read_masters()
    found = find_hand_ins(options.folder, masters)  # may refuse: before an earlier table is written over
    if found.hidden:
        print(f"note: {found.hidden} hidden file(s), copies of an editor or a Mac, passed over", file=sys.stderr)
    if not without_network():
        print("note: this system does not let notebooks be cut off from the network", file=sys.stderr)
    limits, table = Limits(options.timeout, options.total, options.memory), options.out or Path(os.devnull)
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in graded(options.folder, found, masters, limits):
            writer.writerow(row)
            stream.flush()  # at once, so that a long grading can be stopped
            print("  ".join(value for value in row.values() if value), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser("grade", __doc__)
    add = parser.add_argument
    add("folder", type=given_path, help="handed-in notebooks, in any subfolders")
    parser.add_out("write the table there as well, row by row", file=True, metavar="CSV")
    add("--timeout", type=above_zero, default=Limits.cell_s, help="seconds a cell may take (120)")
    add("--total", type=above_zero, default=Limits.total_s, help="seconds a notebook may take (900)")
    add("--memory", type=above_zero, default=Limits.memory_gb, help="GiB a notebook may take (8)")
    return run_command(_run, parser, argv, interrupted="interrupted: the rows that are written are kept")
