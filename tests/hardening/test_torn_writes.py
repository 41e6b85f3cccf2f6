"""A process that is killed between any two file operations leaves whole files and whole artefacts, old or new."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from mobivid_core import artifacts
from mobivid_core.files import clear_leftovers, read_json
from mobivid_core.show import results as registry
from mobivid_core.show.results import Results

#: Every way in which the code under test changes the disk.
OPERATIONS = ("replace", "rename", "fsync", "unlink", "chmod", "mkdir", "rmdir")


def _killed_at(operation: int, work: Callable[[], None]) -> bool:
    """Do `work` in a child that kills itself before its n-th file operation; False if it ended before that."""
    child = os.fork()
    if child == 0:
        left = operation

        def counted(change: Callable) -> Callable:
            def call(*arguments: object, **options: object) -> object:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return change(*arguments, **options)

            return call

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _publish(text: str) -> None:
    with artifacts.publish("plan", "smoke") as folder:
        for name in ("a.json", "b.json"):
            (folder / name).write_text(text)


def test_an_artefact_is_whole_whenever_its_writer_is_killed(runs: Path) -> None:
    _publish("old")
    killed = 0
    while _killed_at(killed, lambda: _publish("new")):
        artifacts.restore("smoke")  # what the next run does first
        found = artifacts.find("plan", "smoke")
        artifacts.verify(found.path)
        assert found.origin == "run"
        assert {(found.path / name).read_text() for name in ("a.json", "b.json")} in ({"old"}, {"new"})
        _publish("old")
        killed += 1
    assert killed >= 5  # stamp written, stamp moved, old one moved away, new one moved in, old one deleted
    assert (artifacts.find("plan", "smoke").path / "a.json").read_text() == "new"


def test_registered_results_are_whole_whenever_their_writer_is_killed(runs: Path) -> None:
    results = Results(notebook="01_vae_compression", profile="smoke")
    results.headline("before", 1.0)

    def work() -> None:
        results.headline("toy", 2.0)
        results.forget_others({"toy"})

    killed = 0
    while _killed_at(killed, work):
        rows = {row["id"]: row["value"] for row in registry.read_headlines(results.folder / registry.HEADLINES)}
        assert rows in ({"before": "1"}, {"before": "1", "toy": "2"}, {"toy": "2"})
        noted = read_json(registry.registered_path(results.notebook, "smoke"))
        assert noted["before"]["kind"] == "headline" and noted.keys() <= {"before", "toy"}
        results.headline("before", 1.0)
        killed += 1
    assert killed >= 6  # three files, each written, synced and moved
    rows = registry.read_headlines(results.folder / registry.HEADLINES)
    assert [row["id"] for row in rows] == ["toy"]


def test_what_a_killed_run_left_is_put_back_or_cleared(runs: Path) -> None:
    folder = runs / "smoke" / "artifacts"
    _publish("old")
    (folder / "plan").rename(folder / ".plan-abcdefgh-old")  # killed between the two moves of a publication
    (folder / ".teacher-ijklmnop").mkdir()  # killed while it wrote
    (folder / ".teacher-ijklmnop" / "config.json").write_text("{")
    artifacts.restore("smoke")
    assert (artifacts.find("plan", "smoke").path / "a.json").read_text() == "old"
    assert {p.name for p in folder.iterdir()} == {"plan", ".teacher-ijklmnop"}  # that one may still be written
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(folder / ".teacher-ijklmnop", (long_ago, long_ago))
    artifacts.restore("smoke")
    assert [p.name for p in folder.iterdir()] == ["plan"]


def test_old_temporary_files_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    names = (".headlines-abcd1234.csv", ".headlines-efgh5678.csv", ".figures.lock", "headlines.csv")
    for name in names:
        (tmp_path / name).touch()
    long_ago = time.time() - 2 * 24 * 3600
    for name in set(names) - {".headlines-efgh5678.csv"}:
        os.utime(tmp_path / name, (long_ago, long_ago))
    clear_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(names) - {".headlines-abcd1234.csv"}
    clear_leftovers(tmp_path / "missing")
