"""Grade handed-in notebooks: `python -m mobivid_core.teaching.grade FOLDER --out GRADES.csv`.

Each notebook of the folder is run with the master's own check cells in place of the student's. This runs the students'
code: do it where you would run any stranger's program.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbformat import NotebookNode

from mobivid_core.errors import MobiVidError, TeachingError
from mobivid_core.teaching.masters import Master, read_masters
from mobivid_core.teaching.verdict import VERDICT_MIME


def grade_notebook(handed_in: NotebookNode, master: Master, timeout: int = 120) -> list[dict[str, str]]:
    """Run a student's notebook with the master's checks.

    Args:
        handed_in: The student's notebook; its check cells are found by their ids, as the edition wrote them.
        master: Its master.
        timeout: Seconds a cell may take.

    Returns:
        One row an exercise: exercise, status ("right", "wrong", "open"), message.

    Raises:
        TeachingError: A check cell was deleted.
    """
    cells = {cell.id: cell for cell in handed_in.cells}
    for exercise in master.exercises:
        if master.cells[exercise.check].id not in cells:
            raise TeachingError(f"the check cell of {exercise.title!r} is missing: hand out that notebook again")
        cells[master.cells[exercise.check].id].source = master.cells[exercise.check].source
    NotebookClient(handed_in, kernel_name="python3", allow_errors=True, timeout=timeout, startup_timeout=300).execute()
    return [{"exercise": e.title, **_verdict_of(cells[master.cells[e.check].id])} for e in master.exercises]


def grade_folder(folder: Path) -> pd.DataFrame:
    """Grade all notebooks below a folder that are named after a master, e.g. `ana/ex02_flow.ipynb`.

    Returns:
        One row an exercise: file, exercise, status, message.

    Raises:
        TeachingError: No notebook there has a master's name.
    """
    found = [(path, m) for m in read_masters() for path in sorted(Path(folder).rglob(f"*{m.name}*.ipynb"))]
    if not found:
        raise TeachingError(
            f"no handed-in notebooks in {folder}: their names have to hold a master's, such as ex02_flow"
        )
    rows = []
    for path, master in found:
        try:
            graded = grade_notebook(nbformat.read(path, as_version=4), master)
        except TeachingError as error:
            graded = [{"exercise": "", "status": "wrong", "message": str(error)}]
        rows += [{"file": str(path.relative_to(folder)), **row} for row in graded]
    return pd.DataFrame(rows)


def _verdict_of(cell: NotebookNode) -> dict[str, str]:
    for output in cell.outputs:
        if VERDICT_MIME in output.get("data", {}):
            status = output["data"][VERDICT_MIME]["status"]
            return {"status": status, "message": output["data"]["text/plain"]}
    errors = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
    return {"status": "open", "message": errors[0] if errors else "the check did not run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 if there is nothing to grade."""
    parser = argparse.ArgumentParser(prog="python -m mobivid_core.teaching.grade", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="handed-in notebooks, in any subfolders")
    parser.add_argument("--out", type=Path, metavar="CSV", help="write the table there as well")
    arguments = parser.parse_args(argv)
    try:
        table = grade_folder(arguments.folder)
    except MobiVidError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table.to_string(index=False))
    if arguments.out:
        table.to_csv(arguments.out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
