"""Make the exercise notebooks: `python -m mobivid_core.teaching --edition student --out FOLDER`.

Exit codes: 0 done, 1 a master is malformed or the folder holds other files, 2 a bad argument.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.teaching.editions import EDITIONS, write_editions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m mobivid_core.teaching", description=__doc__.splitlines()[0])
    parser.add_argument("--edition", required=True, help=" or ".join(EDITIONS))
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="an empty or new folder")
    arguments = parser.parse_args(argv)
    try:
        written = write_editions(arguments.edition, arguments.out)
    except ParameterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MobiVidError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(written)} notebooks, {arguments.edition} edition, in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
