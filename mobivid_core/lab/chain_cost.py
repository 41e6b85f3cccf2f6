"""Record the cost of the whole chain: `mobivid bench chain laptop smoke`.

The scorecard cannot time the run that it is part of, so the record is written from the runner's cache once every
notebook before it has run, and the scorecard (seconds, it only reads) shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mobivid_core.command import CommandParser, run_command
from mobivid_core.errors import RunError
from mobivid_core.lab.scorecard import costs
from mobivid_core.paths import notebooks_dir
from mobivid_core.profiles import PROFILES
from mobivid_core.studies.records import read_record, record_folder, write_record
from mobivid_core.train.speed import has_amx_bf16, usable_cores

RECORD = "chain"
COMMAND = "mobivid bench chain laptop smoke"


def chain_rows(profile: str) -> pd.DataFrame:
    """Profile, notebook, seconds and peak GB of every notebook before the scorecard, as last run, or RunError."""
    spent = costs(profile).set_index("notebook")
    chain = [path.stem for path in sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))][:-1]
    missing = [name for name in chain if name not in spent.index]
    if missing:
        raise RunError(
            f"profile {profile}: {', '.join(missing)} not run here yet, so the chain has no total; run "
            f"mobivid reproduce --profile {profile}"
        )
    return spent.loc[chain].reset_index().assign(profile=profile)[["profile", "notebook", "seconds", "peak GB"]]


def load_chain(folder: Path | None = None) -> tuple[pd.DataFrame, str]:
    """One row a profile (seconds, peak GB), and one sentence on the machine; CheckpointError without a record."""
    rows, facts = read_record((folder or record_folder()) / RECORD, COMMAND)
    table = rows.groupby("profile", sort=False).agg({"seconds": "sum", "peak GB": "max"})
    amx = "with" if facts["amx"] else "without"
    return table, f"Recorded on {facts['date']} on {facts['cores']} cores {amx} AMX, notebooks 00 to 06."


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: write the record of these profiles; returns the exit status."""
    parser = CommandParser("bench chain", __doc__)
    parser.add_argument("profiles", nargs="+", choices=sorted(PROFILES), help="profiles that have been run here")
    return run_command(_record, parser, arguments)


def _record(options: argparse.Namespace) -> None:
    table = pd.concat([chain_rows(name) for name in options.profiles], ignore_index=True)
    facts = {"cores": usable_cores(), "amx": has_amx_bf16()}
    write_record(record_folder() / RECORD, table, facts)
    print(load_chain()[0].to_string())
