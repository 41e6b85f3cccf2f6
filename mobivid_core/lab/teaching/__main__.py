"""Make the exercise notebooks: `python -m mobivid_core.lab.teaching --edition student --out FOLDER`.

Exit codes: 0 done, 2 a bad argument, a malformed master or a folder that holds other files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mobivid_core.command import CommandParser, given_path, run_command
from mobivid_core.lab.teaching.editions import EDITIONS, write_editions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    parser = CommandParser("mobivid_core.lab.teaching", __doc__)
    parser.add_argument("--edition", required=True, help=" or ".join(EDITIONS))
    parser.add_argument("--out", required=True, type=given_path, metavar="FOLDER", help="an empty or new folder")
    return run_command(_write, parser, argv)


def _write(options: argparse.Namespace) -> None:
    written = write_editions(options.edition, options.out)
    print(f"{len(written)} notebooks, {options.edition} edition, in {options.out}")


if __name__ == "__main__":
    sys.exit(main())
