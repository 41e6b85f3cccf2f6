"""Folders that somebody else made: links are followed, everything else is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mobivid_core.files import find_files


def test_links_are_followed_once_and_the_rest_is_named(tmp_path: Path) -> None:
    inside, elsewhere = tmp_path / "inside", tmp_path / "elsewhere"
    (inside / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "far.mp4").touch()
    for name in ("a.mp4", "sub/b.mp4", ".hidden.mp4"):
        (inside / name).touch()
    (inside / "folder").symlink_to(elsewhere)
    (inside / "around").symlink_to(inside)
    (inside / "same.mp4").symlink_to(inside / "a.mp4")
    (inside / "broken.mp4").symlink_to(inside / "gone.mp4")
    os.mkfifo(inside / "pipe.mp4")
    found = find_files(inside)
    assert [path.relative_to(inside).as_posix() for path in found.files] == ["a.mp4", "folder/far.mp4", "sub/b.mp4"]
    assert found.hidden == [".hidden.mp4"]
    assert found.passed == {
        "around": "the same as .",
        "same.mp4": "the same as a.mp4",
        "broken.mp4": "a link to nothing",
        "pipe.mp4": "not a regular file",
    }


def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.mp4").touch()
    scan = os.scandir

    def refuse(path):  # permissions do not bind the superuser
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_files(tmp_path)
    assert [path.name for path in found.files] == ["a.mp4"]
    assert found.passed == {"locked": "cannot be entered (Permission denied)"}
