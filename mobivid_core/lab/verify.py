"""Compare a run with the committed results: `mobivid verify`, after `make reproduce`.

Every headline number and table that the run registered (`runs/<profile>/registered`) is set beside the one committed in
git. Runs are bit-identical on one machine at one number of threads. Elsewhere sums are rounded in another order,
training amplifies that, and seconds are another processor's: each kind of number has its own tolerance. Headlines for
which the evidence class does not say enough have theirs in `show/headline_table.csv`, with the reason.

Exit codes: 0 all within, 1 one is outside or nothing can be compared, 2 a bad argument.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mobivid_core.command import CommandParser, run_command
from mobivid_core.errors import ParameterError, RunError
from mobivid_core.files import read_json, sha256
from mobivid_core.lab.runner.record import git
from mobivid_core.paths import figures_dir, project_root, runs_dir
from mobivid_core.profiles import add_profile, get_profile
from mobivid_core.show.headlines import headline_table
from mobivid_core.show.results import HEADLINE_COLUMNS, HEADLINES, MANIFEST

WITHIN, OUTSIDE, NOT_RUN, NEW = "within", "OUTSIDE", "not run", "new"
#: Reads one file of the committed figures folder; None if it is not there.
Committed = Callable[[str], str | None]
#: The tolerance of a table whose numbers are not compared: they are measured, and have no tolerance each.
COLUMNS_ONLY = "same columns"
#: Notebooks whose tables repeat what others measured: their evidence class is that of the arithmetic alone.
RESTATING = ("07_scorecard",)
#: Kind of tolerance -> how it is shown, and whether our number is close enough to the committed one, given a size.
#: Exact numbers are recorded in six digits, of which five count.
KINDS: dict[str, tuple[str, Callable[[float, float, float], bool]]] = {
    "exact": ("exact", lambda ours, theirs, _: math.isclose(ours, theirs, rel_tol=1e-5, abs_tol=1e-12)),
    "interval": ("interval or {:.0%}", lambda ours, theirs, size: abs(ours - theirs) <= size * abs(theirs)),
    "relative": ("{:.0%}", lambda ours, theirs, size: abs(ours - theirs) <= size * abs(theirs)),
    "factor": ("factor {:g}", lambda ours, theirs, size: theirs != 0 and 1 / size <= ours / theirs <= size),
    "at_most": ("at most {:g} x", lambda ours, theirs, size: ours <= size * theirs),  # less is better
    "points": ("+- {:g}", lambda ours, theirs, size: abs(ours - theirs) <= size),
}


@dataclass(frozen=True)
class Tolerance:
    """A rule that compares a number with the committed one; "interval" also takes any inside the committed interval."""

    kind: str  # of `KINDS`
    size: float = 0.0

    def holds(self, ours: float, committed: float, low: float | None = None, high: float | None = None) -> bool:
        """Whether `ours` is close enough to the committed value and its interval `low` to `high`."""
        inside = self.kind == "interval" and low is not None and high is not None and low <= ours <= high
        return inside or KINDS[self.kind][1](ours, committed, self.size)

    def __str__(self) -> str:
        return KINDS[self.kind][0].format(self.size)


EXACT = Tolerance("exact")
#: Measured numbers with an interval: the interval says what other clips would give, 5 % what another processor may.
WITH_INTERVAL = Tolerance("interval", 0.05)
#: Measured numbers without one, where nothing else is stated; a test allows none of the notebooks' to fall here.
MEASURED = Tolerance("relative", 0.15)


def of_headline(row: dict[str, str]) -> Tolerance:
    """The tolerance of a row of `headlines.csv`: its own, else that of its evidence class."""
    if own := headline_table().get(row["id"], {}).get("tolerance"):
        kind, _, size = own.partition(" ")
        return Tolerance(kind, float(size or 0))
    if row["evidence"] != "measured":
        return EXACT
    return WITH_INTERVAL if row["low"] and row["high"] else MEASURED


def table_is_exact(evidence: str, notebook: str) -> bool:
    """True for a table of counts, arithmetic or quoted numbers; of measured ones only the columns are compared."""
    return evidence != "measured" and notebook not in RESTATING


class Line(NamedTuple):
    """One comparison: a headline's or table's id, both sides in words, the tolerance and the verdict."""

    number: str
    committed: str
    ours: str
    tolerance: str
    verdict: str


def committed_reader(against: str | None) -> Committed:
    """Reader of the committed results, of a git revision or a folder of figures; RunError where there are none.

    None takes git's HEAD, or the checkout's `figures/` where git cannot tell and the run wrote elsewhere.
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

    ParameterError tells of a profile whose numbers mean nothing, RunError that nothing has been run.
    """
    if not get_profile(profile).meaningful:
        raise ParameterError(f"the numbers of profile {profile!r} mean nothing; run and compare profile 'laptop'")
    noted: dict[str, dict] = {}
    for path in sorted((runs_dir(profile) / "registered").glob("*.json")):
        noted |= {name: entry | {"notebook": path.stem} for name, entry in read_json(path, {}).items()}
    if not noted:
        run = f"run `mobivid reproduce --profile {profile}` first"
        raise RunError(f"nothing has been run in {runs_dir(profile)}; {run}")
    theirs = {row["id"]: row for row in _rows(committed(HEADLINES))}
    ours = {
        name: dict(zip(HEADLINE_COLUMNS, entry["content"][name].split("|"), strict=True))
        for name, entry in noted.items()
        if entry["kind"] == "headline" and name in entry["content"]  # not one that could not be measured
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
    within = ours and tolerance.holds(float(ours["value"]), float(theirs["value"]), low, high)
    return Line(theirs["id"], shown, value, str(tolerance), WITHIN if within else OUTSIDE if ours else NOT_RUN)


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
