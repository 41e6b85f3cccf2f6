"""Make the exercise notebooks: `mobivid teaching --edition student --out FOLDER`.

Exit codes: 0 done, 2 a bad argument, a malformed master or a folder that holds other files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mobivid_core.command import CommandParser, run_command
from mobivid_core.lab.teaching.editions import EDITIONS, write_editions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    parser = CommandParser("teaching", __doc__)
    parser.add_argument("--edition", required=True, help=" or ".join(EDITIONS))
    parser.add_out("an empty or new folder", required=True, metavar="FOLDER")
    return run_command(_write, parser, argv)


def _write(options: argparse.Namespace) -> None:
    written = write_editions(options.edition, options.out)
    print(f"{len(written)} notebooks, {options.edition} edition, in {options.out}")
