"""Base of all command lines: user errors exit with one line and status 2, Ctrl-C with one line and 130.

Every subcommand of `mobivid` (`mobivid_core.__main__`) builds a `CommandParser` and hands its work to `run_command`.
A closed pipe (`| head`) ends a command without a word. Nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, TypeVar

from mobivid_core.errors import MobiVidError

N = TypeVar("N", int, float)
#: Exit statuses beside 0 and a command's own 1.
MISTAKE, INTERRUPTED, CLOSED_PIPE = 2, 130, 141


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line.

    `words` are the subcommand's, e.g. "train vae"; of a docstring as `description`, the help shows the first line.
    """

    def __init__(self, words: str = "", description: str | None = None, **settings: object) -> None:
        if words:
            settings["prog"] = f"mobivid {words}"
        first = description.splitlines()[0] if description else None
        super().__init__(description=first, **settings)

    def add_out(self, text: str, default: Path | None = None, *, file: bool = False, **settings: object) -> None:
        """Add `--out`, the folder that a subcommand writes (or the `file`); `text` says what goes there."""
        self.add_argument("--out", type=out_file if file else out_folder, default=default, help=text, **settings)

    def add_seed(self, text: str = "random numbers come from it") -> None:
        """Add `--seed`, a whole number from zero up."""
        self.add_argument("--seed", type=at_least_zero, default=0, help=f"{text} (default: 0)")

    def print_help(self, file: IO[str] | None = None) -> None:
        """The help; a reader that has gone is met with silence here too."""
        if file is not None:
            super().print_help(file)
        elif printed(self.format_help().removesuffix("\n")):
            self.exit(CLOSED_PIPE)

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(MISTAKE, f"error: {_one_line(message)} ({self.prog} --help says more)\n")


def run_command(
    work: Callable[[argparse.Namespace], int | None],
    parser: CommandParser,
    arguments: Sequence[str] | None = None,
    *,
    failed: tuple[type[MobiVidError], ...] = (),
    interrupted: str = "interrupted",  # what Ctrl-C says
) -> int:
    """Parse, work, and turn what goes wrong into one line and the exit status; `work` returns one, or None for 0.

    `failed` errors are no mistake of the user, but the work's own failure: status 1, the message as it is. The parser
    raises SystemExit after a bad argument (2) or `--help` (0).
    """
    with contextlib.suppress(AttributeError, ValueError):  # a name that the terminal cannot show is no failure
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = work(parser.parse_args(arguments)) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _say(f"\n{interrupted}" if sys.stderr.isatty() else interrupted)  # a terminal has shown ^C in this line
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return CLOSED_PIPE
    except (MobiVidError, OSError) as error:  # the latter of a path of the user's that cannot be read or written
        if isinstance(error, failed):  # it may quote what failed, line by line
            _say(f"error: {error}")
            return 1
        _say(f"error: {_one_line(error)}")
        return MISTAKE


def printed(text: str) -> int:
    """Print, and return the exit status: 0, or that of a closed pipe."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _forget_output()
        return CLOSED_PIPE
    return 0


def given_path(text: str) -> Path:
    """An option's path; a shell leaves the "~" of `--out=~/x` to the program."""
    return Path(os.path.expanduser(text))


def out_folder(text: str) -> Path:
    """An option's folder to write: one that cannot be made is refused before the work, not after hours of it."""
    return _can_be_written(given_path(text), Path.is_file, "is a file; give a folder")


def out_file(text: str) -> Path:
    """An option's file to write; see `out_folder`."""
    return _can_be_written(given_path(text), Path.is_dir, "is a folder; give a file in it")


def _can_be_written(path: Path, other: Callable[[Path], bool], wrong: str) -> Path:
    if other(path):
        raise argparse.ArgumentTypeError(f"{path} {wrong}")
    whole = path.absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if there != whole and not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file, so {path} cannot lie in it")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written: no permission to write {there}")
    return path


def _number(kind: type[N], good: Callable[[N], bool], wanted: str) -> Callable[[str], N]:
    """The type of an option that takes certain numbers only."""

    def read(text: str) -> N:
        with contextlib.suppress(ValueError):
            if good(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")

    return read


at_least_one = _number(int, lambda n: n >= 1, "a whole number above zero")
at_least_zero = _number(int, lambda n: n >= 0, "a whole number from zero up")
above_zero = _number(float, lambda x: 0 < x < math.inf, "a number above zero")
not_negative = _number(float, lambda x: 0 <= x < math.inf, "a number from zero up")


def device_name(text: str) -> str:
    """An option's torch device, which has to work here; "" leaves the choice open."""
    if text:
        import torch

        try:
            torch.empty(0, device=text)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise argparse.ArgumentTypeError(f"no device {text!r} on this machine") from error
    return text


def quiet_start() -> None:
    """Ctrl-C while a command still imports its libraries is one line too."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        _say("interrupted")
        os._exit(INTERRUPTED)  # Python would kill itself with the signal, which subprocesses see as -2

    sys.excepthook = hook


def _one_line(message: object) -> str:
    return "; ".join(line.strip() for line in str(message).splitlines() if line.strip())


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening any more
        print(line, file=sys.stderr, flush=True)


def _forget_output() -> None:
    """Python flushes standard output once more when it ends; let that go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
