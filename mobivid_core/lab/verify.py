"""Compare a run with the committed results: `mobivid verify`, after `make reproduce`.

Every headline number and table that the run registered (`runs/<profile>/registered`) is set beside the one committed in
git; `mobivid_core/lab/tolerances.py` says how far each may lie. Exit codes: 0 all within, 1 one is outside or
nothing can be compared, 2 a bad argument.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mobivid_core.command import CommandParser, run_command
from mobivid_core.errors import ParameterError, RunError
from mobivid_core.files import read_json, sha256
from mobivid_core.lab.runner.record import git
from mobivid_core.lab.tolerances import EXACT, of_headline, table_is_exact
from mobivid_core.paths import figures_dir, project_root, runs_dir
from mobivid_core.profiles import add_profile, get_profile
from mobivid_core.show.results import HEADLINE_COLUMNS, HEADLINES, MANIFEST

WITHIN, OUTSIDE, NOT_RUN, NEW = "within", "OUTSIDE", "not run", "new"
#: Reads one file of the committed figures folder; None if it is not there.
Committed = Callable[[str], str | None]
#: The tolerance of a table whose numbers are not compared: they are measured, and have no tolerance each.
COLUMNS_ONLY = "same columns"


class Line(NamedTuple):
    """One comparison: a headline's or table's id, both sides in words, the tolerance and the verdict."""

    number: str
    committed: str
    ours: str
    tolerance: str
    verdict: str


def committed_reader(against: str | None) -> Committed:
    """Reader of the committed results: of a git revision or a folder of figures.

    None takes git's HEAD, or the checkout's `figures/` where git cannot tell and the run wrote elsewhere.

    Raises:
        RunError: There are no committed results to be read.
    """

    def from_folder(folder: Path) -> Committed:
        return lambda name: (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else None

    def from_git(name: str) -> str | None:
        done = git("show", f"{against or 'HEAD'}:./figures/{name}")
        if "dubious ownership" in done.stderr:
            raise RunError(
                f"git does not read {project_root()}, which belongs to another user; allow it with\n"
                f"  git config --global --add safe.directory {project_root()}"
            )
        return done.stdout if done.returncode == 0 else None

    folder = Path(against) if against else project_root() / "figures"
    apart = against is not None or figures_dir("laptop") != folder
    read = from_folder(folder) if against and folder.is_dir() else from_git
    if read(HEADLINES) is None and apart:
        read = from_folder(folder)
    if read(HEADLINES) is None:
        raise RunError(
            f"no committed {HEADLINES} at {against or 'HEAD'}: give a git revision, or the figures/ folder of an "
            "untouched copy, with --against"
        )
    return read


def compare(profile: str, committed: Committed, only: Sequence[str] = ()) -> list[Line]:
    """Set every registered result of the run beside the committed one; `only` has numbers of notebooks, such as "03".

    Raises:
        ParameterError: An unknown profile, or one whose numbers mean nothing.
        RunError: Nothing has been run.
    """
    if not get_profile(profile).meaningful:
        raise ParameterError(f"the numbers of profile {profile!r} mean nothing; run and compare profile 'laptop'")
    noted: dict[str, dict] = {}
    for path in sorted((runs_dir(profile) / "registered").glob("*.json")):
        noted |= {name: entry | {"notebook": path.stem} for name, entry in read_json(path, {}).items()}
    if not noted:
        raise RunError(
            f"nothing has been run in {runs_dir(profile)}; run `mobivid reproduce --profile {profile}` first"
        )
    theirs = {row["id"]: row for row in _rows(committed(HEADLINES))}
    ours = {
        name: dict(zip(HEADLINE_COLUMNS, entry["content"][name].split("|"), strict=True))
        for name, entry in noted.items()
        if entry["kind"] == "headline"
    }

    def asked(row: dict[str, str]) -> bool:
        return not only or row["notebook"][:2] in only

    lines = [_headline(theirs.get(i), ours.get(i)) for i in sorted(theirs | ours) if asked(theirs.get(i) or ours[i])]
    for name, entry in sorted(json.loads(committed(MANIFEST) or "{}").items()):
        file = next((file for file in entry["files"] if file.endswith(".csv")), None)
        if file and asked(entry):
            exact = table_is_exact(entry["evidence"], entry["notebook"])
            content = noted[name]["content"] if name in noted else None
            rows = _rows(committed(file))
            shown, verdict = _table(rows, figures_dir(profile) / file, content, exact)
            tolerance = str(EXACT) if exact else COLUMNS_ONLY
            lines.append(Line(name, f"table of {len(rows)} rows", shown, tolerance, verdict))
    return lines


def _headline(theirs: dict[str, str] | None, ours: dict[str, str] | None) -> Line:
    """One number: the committed row and the run's; either may be missing."""
    value = _number(ours["value"]) if ours else ""
    if not theirs:
        return Line(ours["id"], "", value, "", NEW)
    tolerance = of_headline(theirs)
    low, high = (float(theirs[c]) if theirs[c] else None for c in ("low", "high"))
    shown = _number(theirs["value"]) + ("" if low is None or high is None else f" [{low:.4g}, {high:.4g}]")
    verdict = NOT_RUN
    if ours:
        within = tolerance.holds(float(ours["value"]), float(theirs["value"]), low, high)
        verdict = WITHIN if within else OUTSIDE
    return Line(theirs["id"], shown, value, str(tolerance), verdict)


def _number(text: str) -> str:
    """Counts whole, the rest as recorded."""
    return f"{int(text):,}" if text.isdigit() else text


def _table(theirs: list[dict[str, str]], path: Path, content: dict[str, str] | None, exact: bool) -> tuple[str, str]:
    """This run's side of a table in words, and the verdict; `content` has the hashes of what the run wrote."""
    if content is None:
        return "", NOT_RUN
    if not path.is_file() or sha256(path) != content.get(path.name):
        return "missing, or changed since the run", OUTSIDE
    ours = _rows(path.read_text(encoding="utf-8"))
    difference = _difference(theirs, ours, exact)
    return difference or f"table of {len(ours)} rows", OUTSIDE if difference else WITHIN


def _rows(text: str | None) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text or "")))


def _difference(theirs: list[dict[str, str]], ours: list[dict[str, str]], exact: bool) -> str:
    """What differs first between two tables, in words; empty if nothing does."""
    if theirs and ours and list(theirs[0]) != list(ours[0]):
        return f"other columns: {', '.join(sorted(set(theirs[0]) ^ set(ours[0]))) or 'in another order'}"
    if not exact:
        return ""
    if len(theirs) != len(ours):
        return f"table of {len(ours)} rows"
    for index, (old, new) in enumerate(zip(theirs, ours, strict=True)):
        for column in old:
            if not _same(old[column], new[column]):
                return f"row {index}, {column}: {new[column]!r} for {old[column]!r}"
    return ""


def _same(old: str, new: str) -> bool:
    try:
        return EXACT.holds(float(new), float(old))
    except ValueError:
        return old == new


def rendered(lines: Sequence[Line]) -> str:
    """The comparison as an aligned table with a last line that counts."""
    cells = [("number", "committed", "this run", "tolerance", "verdict"), *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = [" | ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    text.insert(1, "-+-".join("-" * width for width in widths))
    counts = Counter(line.verdict for line in lines)
    told = ", ".join(f"{counts[word]} {word}" for word in (WITHIN, OUTSIDE, NOT_RUN, NEW) if counts[word])
    done = [line for line in lines if line.verdict in (WITHIN, OUTSIDE)]
    shallow = sum(line.tolerance == COLUMNS_ONLY for line in done)
    checks = (
        f"{len(done)} checks: {len(done) - shallow} compare numbers (counts and derived ones exactly, measured ones "
        f"within the tolerance in their row), {shallow} compare the columns of measured tables only"
    )
    return "\n".join([*text, "", checks, told])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser("verify", __doc__)
    add_profile(parser)
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="compare these notebooks' results only")
    parser.add_argument("--against", metavar="REV|FOLDER", help="committed results: a git revision (HEAD) or a folder")
    return run_command(_run, parser, argv)


def _run(options: argparse.Namespace) -> int:
    """1 if a number lies outside its tolerance."""
    lines = compare(options.profile, committed_reader(options.against), options.only)
    print(rendered(lines))
    return int(any(line.verdict == OUTSIDE for line in lines))
