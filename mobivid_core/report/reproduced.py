"""Did this run give the committed numbers? `python -m mobivid_core.report.reproduced`, after `make reproduce`.

Prints "number | committed | this run | tolerance | verdict" for every headline number and exits with 1 if one is
missing or outside its tolerance. The tolerances are in `tolerances.csv`, beside this file.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobivid_core.errors import MobiVidError, RunError
from mobivid_core.files import read_json
from mobivid_core.paths import figures_dir, project_root, runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.report.results import HEADLINE_COLUMNS, HEADLINES, read_headlines

TOLERANCES = Path(__file__).with_name("tolerances.csv")
RULES = ("relative", "interval", "factor", "absolute", "at most")
WITHIN, OUTSIDE, MISSING, NEW = "within", "OUTSIDE", "MISSING", "new"


@dataclass(frozen=True)
class Tolerance:
    """How far a run's number may lie from the committed one.

    Attributes:
        rule: One of `RULES`.
        amount: A share of the committed value ("relative", "interval": where its interval is narrower), a factor either
            way, a difference, or for "at most" the largest value allowed.
    """

    rule: str
    amount: float

    def range(self, row: dict[str, str]) -> tuple[float, float]:
        """Lowest and highest number allowed beside a committed row."""
        value = float(row["value"])
        near = abs(value) * self.amount
        if self.rule == "relative":
            return value - near, value + near
        if self.rule == "interval":
            return min(float(row["low"]), value - near), max(float(row["high"]), value + near)
        if self.rule == "factor":
            ends = value / self.amount, value * self.amount
            return min(ends), max(ends)
        if self.rule == "absolute":
            return value - self.amount, value + self.amount
        return -math.inf, self.amount

    def text(self, row: dict[str, str]) -> str:
        """The tolerance for a reader."""
        low, high = self.range(row)
        if self.rule == "relative":
            return f"{100 * self.amount:g} %"
        if self.rule == "at most":
            return f"at most {self.amount:g}"
        said = {"interval": "interval", "factor": f"factor {self.amount:g}", "absolute": f"+-{self.amount:g}"}
        return f"{said[self.rule]}: {low:.4g} to {high:.4g}"


@dataclass(frozen=True)
class Comparison:
    """One line of the table."""

    number: str
    committed: str
    run: str
    tolerance: str
    verdict: str


def tolerances() -> dict[str, Tolerance]:
    """Tolerance by headline id, and by kind of number where an id has none of its own."""
    with TOLERANCES.open(newline="", encoding="utf-8") as stream:
        return {row["id"]: Tolerance(row["rule"], float(row["amount"])) for row in csv.DictReader(stream)}


def tolerance_of(row: dict[str, str], known: dict[str, Tolerance]) -> Tolerance:
    """The tolerance of a headline row: its own, else that of its kind."""
    interval = " with an interval" if row["low"] and row["high"] and row["evidence"] == "measured" else ""
    return known.get(row["id"]) or known.get(row["evidence"] + interval) or known["measured"]


def registered(profile: str) -> dict[str, dict[str, str]]:
    """Headline rows that runs at `profile` wrote, by id.

    Raises:
        RunError: There is none.
    """
    rows: dict[str, dict[str, str]] = {}
    for path in sorted((runs_dir(get_profile(profile).name) / "registered").glob("*.json")):
        for name, note in read_json(path).items():
            if note["kind"] == "headline":
                rows[name] = dict(zip(HEADLINE_COLUMNS, note["content"][name].split("|"), strict=True))
    if not rows:
        raise RunError(f"no run at profile {profile!r} in {runs_dir(profile)}; do `make reproduce` first")
    return rows


def committed(against: Path | None = None) -> list[dict[str, str]]:
    """Committed headline rows: a run may have rewritten the file, so git is asked for its own copy.

    Args:
        against: Read this file instead.

    Raises:
        RunError: No git checkout, and the file there may be the run's own; or there is no row.
    """
    name = f"figures/{HEADLINES}"
    file = project_root() / name
    if against is None and figures_dir("laptop") == file.parent:
        command = ["git", "show", f"HEAD:./{name}"]
        try:
            done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise RunError(
                f"the committed {name} cannot be read from git, and the file itself is rewritten by a run. "
                f"Give the original with --against FILE, or set MOBIVID_RUNS before `make reproduce`"
            ) from error
        rows = list(csv.DictReader(done.stdout.splitlines()))
    else:
        rows = read_headlines(against or file)
    if not rows:
        raise RunError(f"no committed headline number in {against or file}; is this a whole checkout?")
    return rows


def compare(before: list[dict[str, str]], now: dict[str, dict[str, str]]) -> list[Comparison]:
    """Compare every committed number with this run's; numbers that only the run has come last.

    Args:
        before: Committed rows.
        now: The run's rows by id.
    """
    known, lines = tolerances(), []
    for row in before:
        tolerance, own = tolerance_of(row, known), now.get(row["id"])
        low, high = tolerance.range(row)
        verdict = MISSING if own is None else WITHIN if low <= float(own["value"]) <= high else OUTSIDE
        value = own["value"] if own else ""
        lines.append(Comparison(row["id"], row["value"], value, tolerance.text(row), verdict))
    fresh = sorted(now.keys() - {row["id"] for row in before})
    return lines + [Comparison(name, "", now[name]["value"], "", NEW) for name in fresh]


def table(lines: Sequence[Comparison]) -> str:
    """The comparison in aligned columns."""
    cells = [("number", "committed", "this run", "tolerance", "verdict")]
    cells += [(x.number, x.committed, x.run, x.tolerance, x.verdict) for x in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = (" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(row.rstrip() for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 if all are within, 1 if one is not or nothing can be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m mobivid_core.report.reproduced", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--profile", default="laptop", help="whose run (default: laptop, which the committed ones are)")
    parser.add_argument("--against", type=Path, help="committed headlines.csv, where there is no git")
    options = parser.parse_args(argv)
    try:
        lines = compare(committed(options.against), registered(options.profile))
    except MobiVidError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(lines))
    bad = [line for line in lines if line.verdict in (OUTSIDE, MISSING)]
    print(f"{len(lines) - len(bad)} of {len(lines)} numbers within tolerance")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
