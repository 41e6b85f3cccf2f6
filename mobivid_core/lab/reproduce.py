"""Reproduce every table and figure: `mobivid reproduce --profile laptop`.

Exit codes: 0 done, 1 a notebook or a check failed, 2 a bad argument, 130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence

from mobivid_core.command import CommandParser, run_command
from mobivid_core.errors import RunError
from mobivid_core.profiles import add_profile


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser("reproduce", __doc__)
    add_profile(parser)
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks to run, e.g. --only 03 04")
    parser.add_argument("--force", action="store_true", help="run notebooks even if nothing changed")
    parser.add_argument("--list", action="store_true", help="show what would run and why, and run nothing")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a notebook parameter, checked against the notebooks' own",
    )  # fmt: skip
    parser.add_argument(
        "--commit-outputs", action="store_true",
        help="afterwards copy the outputs into notebooks/ and the headline table into README.md",
    )  # fmt: skip
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is as clean as Ctrl-C
    try:
        goes_on = "interrupted: finished notebooks are kept; the same command goes on from there"
        return run_command(_run, parser, argv, failed=(RunError,), interrupted=goes_on)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: argparse.Namespace) -> None:
    from mobivid_core.lab.runner.chain import Chain

    chain = Chain(arguments.profile, arguments.only, [tuple(pair) for pair in arguments.parameter])
    if arguments.list:
        _list(chain)
        return
    if arguments.commit_outputs:
        from mobivid_core.lab.runner.outputs import check_committable, commit_outputs

        check_committable(chain)
    chain.run(force=arguments.force)
    if arguments.commit_outputs:
        commit_outputs(chain)


def _list(chain: object) -> None:
    from mobivid_core.lab.runner.record import expected_seconds
    from mobivid_core.lab.runner.source import resolve

    notebooks = chain.selected()
    for notebook, given in zip(notebooks, resolve(notebooks, chain.profile, chain.given), strict=True):
        seconds = expected_seconds(notebook.name, chain.profile)
        cost = f"{seconds:6.0f} s" if seconds is not None else "       ?"
        print(f"{notebook.name:32s}{cost}  {chain.why(notebook, given) or 'unchanged'}")
