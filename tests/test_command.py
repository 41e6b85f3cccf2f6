"""Every command ends alike: a mistake is one line and status 2, Ctrl-C one line and 130, a closed pipe silent."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import mobivid_core
from mobivid_core import command
from mobivid_core.__main__ import COMMANDS
from mobivid_core.__main__ import main as mobivid
from mobivid_core.command import (
    CommandParser,
    above_zero,
    at_least_one,
    at_least_zero,
    device_name,
    not_negative,
    out_file,
    out_folder,
    run_command,
)
from mobivid_core.errors import ParameterError, RunError
from mobivid_core.paths import project_root

PACKAGE = Path(mobivid_core.__file__).parent


TARGETS = {words: target.split() for group in COMMANDS.values() for words, (target, _) in group.items()}
MODULES = {words: target[0] for words, target in TARGETS.items()}
every_command = pytest.mark.parametrize("name", sorted(MODULES))


def _raising(error: BaseException) -> Callable:
    def parse(self: CommandParser, *arguments: object) -> None:
        raise error

    return parse


@every_command
def test_every_command_ends_alike(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module(f"mobivid_core.{MODULES[name]}").main
    with pytest.raises(SystemExit) as left:
        main([*TARGETS[name][1:], "--no-such-option"])
    out, err = capsys.readouterr()
    assert left.value.code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    with pytest.raises(SystemExit) as left:
        main([*TARGETS[name][1:], "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and said.startswith(f"usage: mobivid {name.split()[0]}")

    class Closed:
        """Standard output whose reader is gone."""

        def fileno(self) -> int:
            raise ValueError("none")

    for error, status, text in (
        (ParameterError("the first\n  and the second line"), 2, "error: the first; and the second line\n"),
        (FileNotFoundError(2, "No such file", "x.mp4"), 2, "error: [Errno 2] No such file: 'x.mp4'\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(CommandParser, "parse_args", _raising(error))
            if not text:
                patch.setattr(command.sys, "stdout", Closed())
            assert main(TARGETS[name][1:]) == status
        out, err = capsys.readouterr()
        assert not out and err.startswith(text) and err.count("\n") == bool(text), err


@every_command
def test_every_number_that_a_command_takes_is_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Action] = []

    def collect(self: CommandParser, *arguments: object) -> None:
        parsers = [self]
        while parsers:
            parser = parsers.pop()
            seen.extend(parser._actions)
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction):
                    parsers += action.choices.values()
        raise KeyboardInterrupt

    monkeypatch.setattr(CommandParser, "parse_args", collect)
    importlib.import_module(f"mobivid_core.{MODULES[name]}").main(TARGETS[name][1:])
    assert seen
    for action in seen:
        bare = action.type in (int, float) and not action.choices
        assert not bare, f"{action.option_strings} takes any number: use a type of mobivid_core.command"
        if "--out" in action.option_strings:
            assert action.type in (out_file, out_folder), "--out is checked after hours of work: use add_out"


@pytest.mark.parametrize(
    ("kind", "good", "wrong"),
    [
        (at_least_one, {"1": 1, "12": 12}, ["0", "-1", "1.5", "x", ""]),
        (at_least_zero, {"0": 0, "7": 7}, ["-1", "0.0", "nan"]),
        (above_zero, {"0.5": 0.5, "2": 2.0}, ["0", "-1", "nan", "inf", "x"]),
        (not_negative, {"0": 0.0, "1e-3": 1e-3}, ["-0.1", "nan", "inf"]),
        (device_name, {"cpu": "cpu", "": ""}, ["abacus", "cuda:99"]),
    ],
)
def test_numbers_and_devices(kind: Callable, good: dict, wrong: list[str]) -> None:
    assert {text: kind(text) for text in good} == good
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a file.csv"
    file.touch()
    for kind in (out_file, out_folder):
        assert kind(str(tmp_path / "ä" / "new one")) == tmp_path / "ä" / "new one"
        with pytest.raises(argparse.ArgumentTypeError, match="is a file, so .* cannot lie in it"):
            kind(str(file / "x"))
    assert out_file(str(file)) == file and out_folder(str(tmp_path)) == tmp_path
    with pytest.raises(argparse.ArgumentTypeError, match="is a file; give a folder"):
        out_folder(str(file))
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder; give a file in it"):
        out_file(str(tmp_path))
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # who runs tests as root may write everywhere
    with pytest.raises(argparse.ArgumentTypeError, match="x cannot be written: no permission"):
        out_folder(str(tmp_path / "x"))


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--steps", "-3"], ["--steps", "many"]])
def test_a_training_without_steps_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from mobivid_core.train.publish import main

    with pytest.raises(SystemExit, match="2"):
        main(["vae", *arguments])
    assert "argument --steps: expected a whole number above zero" in capsys.readouterr().err


def test_a_failure_of_the_work_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise RunError("a notebook failed in cell 3:\n    x = 1\n    y = z")

    assert run_command(fail, CommandParser("a.b"), [], failed=(RunError,)) == 1
    assert capsys.readouterr().err == "error: a notebook failed in cell 3:\n    x = 1\n    y = z\n"  # as quoted
    assert run_command(fail, CommandParser("a.b"), []) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run_command(lambda options: 7, CommandParser("a.b"), []) == 7
    assert run_command(lambda options: None, CommandParser("a.b"), []) == 0


def test_the_help_names_every_subcommand_and_imports_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from mobivid_core.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n") and all(f"\n  {words} " in done.stdout for words in MODULES)
    assert mobivid(["study"]) == 0  # a group's own page
    said = capsys.readouterr().out
    assert "study losses" in said and "reproduce " not in said


@pytest.mark.parametrize(
    ("words", "hint"), [(["train", "vea"], "mean `mobivid train vae`"), (["sing"], "--help lists"), (["--x"], "--help")]
)
def test_an_unknown_subcommand_is_one_line(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mobivid(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: no subcommand") and hint in err and err.count("\n") == 1


def test_a_subcommand_gets_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[list[str]] = []
    monkeypatch.setattr("mobivid_core.studies.loss_record.main", lambda words: got.append(words) or 7)
    assert mobivid(["study", "losses", "--seeds", "2"]) == 7 and got == [["losses", "--seeds", "2"]]


def test_documents_name_subcommands_that_exist() -> None:
    root, call = project_root(), re.compile(r"(?:`|^|\n|\")mobivid ([a-z]+)(?: ([a-z]+))?")
    documents = [root / "README.md", root / "CHANGELOG.md", *root.glob("docs/*.md")]
    documents += [*root.glob("notebooks/**/*.*"), *root.glob("data/**/*.md")]
    documents += [path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py"]
    named = {(path.name, *words) for path in documents for words in call.findall(path.read_text("utf-8"))}
    known = MODULES.keys() | {"study "}  # an error's text names the study that it is about
    wrong = [n for n in named if n[1] not in known and f"{n[1]} {n[2]}" not in known]
    assert len(named) > 20 and not wrong


def _started(*arguments: str, **settings: object) -> subprocess.Popen:
    """A process that heeds Ctrl-C, which a shell's background jobs, and whatever they start, ignore."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([sys.executable, *arguments], preexec_fn=heed, **pipes, **settings)


def test_a_reader_that_leaves_is_met_with_silence() -> None:
    many = (
        "import sys; from mobivid_core.command import CommandParser, run_command\n"
        "sys.exit(run_command(lambda o: [print(i) for i in range(10**6)] and None, CommandParser('a'), []))"
    )
    process = _started("-c", many)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(60) == 141


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal there")
@pytest.mark.parametrize("words", [["--help"], ["train"], ["--version"], ["data", "check", "--help"]])
def test_a_help_page_that_nobody_reads_is_silent(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mobivid_core", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_interrupting_the_imports_is_one_line_too(tmp_path: Path) -> None:
    """A command spends its first seconds importing: `torch` here is a module that takes its time."""
    (tmp_path / "torch.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}
    process = _started("-m", "mobivid_core", "bench", "memory", env=environment)
    assert process.stdout and process.stdout.readline() == "importing\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "interrupted\n"
