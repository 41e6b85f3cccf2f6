"""`start` refuses wrong parameters, sets the seed, and the command line maps errors to exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mobivid_core.errors import MobiVidError, ParameterError, ProfileError
from mobivid_core.lab import reproduce
from mobivid_core.show import notebook


@pytest.mark.parametrize(
    ("profile", "seed", "error", "text"),
    [
        (3, 0, ParameterError, "PROFILE must be text such as 'laptop', got 3"),
        ("huge", 0, ProfileError, "unknown profile 'huge'; the profiles are smoke, laptop"),
        ("smoke", "1", ParameterError, "SEED must be a whole number from 0 to 4294967295, got '1'"),
        ("smoke", True, ParameterError, "got True"),
        ("smoke", -1, ParameterError, "got -1"),
    ],
)
def test_wrong_parameters_are_refused(profile: object, seed: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        notebook.start("01_vae_compression", profile, seed)


def test_start_seeds_and_announces(runs: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("MOBIVID_THREADS", str(threads))
    context = notebook.start("01_vae_compression", "smoke", 7)
    first = torch.rand(3)
    notebook.start("01_vae_compression", "smoke", 7)
    assert torch.equal(first, torch.rand(3))
    assert (context.profile.name, context.threads, context.device) == ("smoke", threads, "cpu")
    printed = capsys.readouterr().out
    assert "profile smoke  seed 7  device cpu" in printed and "numbers are meaningless" in printed


def test_threads_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBIVID_THREADS", "many")
    with pytest.raises(ParameterError, match="MOBIVID_THREADS is 'many'"):
        notebook.thread_count()


def test_a_missing_gpu_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MobiVidError, match="Use the profile 'scratch'"):
        notebook.start("01_vae_compression", "gpu", 0)


def test_an_unknown_profile_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--profile", "laptopp"])
    assert "unknown profile 'laptopp'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--profile", "smoke", "--only", "99"], 2, "no notebook '99'"),
        (["--profile", "smoke", "-p", "SEEDS", "1"], 2, "unknown parameter 'SEEDS'. Known are: 00_start_here"),
        (["--profile", "smoke", "-p", "PROFILE", "gpu"], 2, "give the profile with --profile"),
        (["--profile", "smoke", "-p", "SEED", "one"], 2, "the parameter SEED is of type int (default 0), got 'one'"),
        (["--profile", "smoke", "--commit-outputs"], 2, "--commit-outputs keeps what a reader gets by default"),
    ],
)
def test_bad_arguments_exit_with_2_and_one_line(
    runs: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int, text: str
) -> None:
    assert reproduce.main(arguments) == code
    assert text in capsys.readouterr().err
