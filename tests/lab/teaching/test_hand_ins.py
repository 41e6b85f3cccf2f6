"""What students hand in, whatever happened to it: graded, or refused with the true reason; none stops the rest."""

from __future__ import annotations

import copy
import json
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from mobivid_core.errors import TeachingError
from mobivid_core.lab.teaching import grade, hand_ins
from mobivid_core.lab.teaching.confined import Limits, run_confined, without_network
from mobivid_core.lab.teaching.editions import edition_of
from mobivid_core.lab.teaching.hand_ins import find_checks, find_hand_ins, kin, read_hand_in
from mobivid_core.lab.teaching.masters import read_masters

MASTERS = read_masters()
START, VAE = MASTERS[:2]
CHECKS = [START.cells[e.check].id for e in START.exercises]


def _handed_in() -> dict:
    """A student's notebook as plain JSON values."""
    return json.loads(json.dumps(edition_of(START, "student")))


def _cell(values: dict, name: str) -> dict:
    return next(cell for cell in values["cells"] if cell.get("id") == name)


def _read(tmp_path: Path, values: object) -> NotebookNode:
    path = tmp_path / "ex00_start.ipynb"
    data = values if isinstance(values, bytes) else json.dumps(values).encode()
    path.write_bytes(data)
    return read_hand_in(path)


def _renewed(values: dict) -> None:
    for i, cell in enumerate(values["cells"]):
        cell["id"] = f"colab{i:05d}"


def _bent_and_renewed(values: dict) -> None:
    _cell(values, CHECKS[0])["source"] = "print('right')"
    _renewed(values)


def _without_ids(values: dict) -> None:
    values["nbformat_minor"] = 4
    for cell in values["cells"]:
        del cell["id"]


def _in_format_3(values: dict) -> None:
    old = nbformat.convert(nbformat.from_dict(values), 3)
    values.clear()
    values.update(json.loads(json.dumps(old)))


def _as_lines(values: dict) -> None:
    for cell in values["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        cell.pop("metadata")


def _copied(values: dict) -> None:
    values["cells"].append({**copy.deepcopy(_cell(values, CHECKS[0])), "source": "1 / 0"})


def _odd_outputs(values: dict) -> None:
    for cell in values["cells"]:
        cell |= {"outputs": "many", "execution_count": "x", "attachments": 3}


@pytest.mark.parametrize(
    "change",
    [_renewed, _bent_and_renewed, _without_ids, _in_format_3, _as_lines, _copied, _odd_outputs],
    ids=lambda change: change.__name__,
)
def test_a_notebook_that_an_editor_changed_is_graded_all_the_same(tmp_path: Path, change: Callable) -> None:
    values = _handed_in()
    before = [cell["source"] for cell in values["cells"]]
    places = [before.index(_cell(values, name)["source"]) for name in CHECKS]
    change(values)
    notebook = _read(tmp_path, values)
    assert find_checks(notebook, START) == places
    assert kin(notebook, MASTERS) == START
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    nbformat.validate(notebook)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_same_notebook_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    text = json.dumps(_handed_in(), ensure_ascii=False)
    assert find_checks(_read(tmp_path, text.encode(encoding)), START)


TEXT = json.dumps(_handed_in(), indent=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (TEXT[:800], "cut off or damaged"),
        (TEXT[:-2], "cut off or damaged"),
        ("<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (f"<<<<<<< HEAD\n{TEXT}\n=======\n>>>>>>> x\n", r"merge conflict \(line 1\)"),
        (TEXT.replace(' "cells"', '<<<<<<< HEAD\n "cells"'), r"merge conflict \(line \d+\)"),
        (b"PK\x03\x04....", "ZIP archive"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X\xff\xb0", "no text"),
        ("[" * 100_000, "no notebook"),
        ("# my answers\nx = 1", "no notebook"),
        ("[1, 2]", "JSON, but no notebook"),
        ('{"a": 1}', "JSON, but no notebook"),
        ('{"nbformat": 9, "nbformat_minor": 0, "cells": []}', "newer than this program"),
        ('{"nbformat": 4, "cells": 3}', "no list of cells"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}', "cell 0 of the notebook is damaged"),
        ('{"nbformat": 4, "cells": ["x"]}', "cell 0 of the notebook is damaged"),
        ('{"nbformat": 3, "worksheets": 7}', "format 3 cannot be converted"),
    ],
)
def test_what_is_no_notebook_any_more_is_named(tmp_path: Path, data: str | bytes, message: str) -> None:
    with pytest.raises(TeachingError, match=message):
        _read(tmp_path, data if isinstance(data, bytes) else data.encode())


def test_a_check_that_is_gone_is_named(tmp_path: Path) -> None:
    values = _handed_in()
    values["cells"] = [cell for cell in values["cells"] if cell["id"] != CHECKS[1]]
    with pytest.raises(TeachingError, match="check cell of '2.*missing"):
        find_checks(_read(tmp_path, values), START)
    values = _handed_in()
    _cell(values, CHECKS[0])["cell_type"] = "markdown"
    with pytest.raises(TeachingError, match="no code cell any more"):
        find_checks(_read(tmp_path, values), START)
    with pytest.raises(TeachingError, match="another notebook under that name"):
        find_checks(_read(tmp_path, {"nbformat": 4, "cells": [{"cell_type": "code", "source": "1"}]}), START)
    with pytest.raises(TeachingError, match="no cells"):
        find_checks(_read(tmp_path, {"nbformat": 4, "cells": []}), START)


def test_files_under_other_names_are_listed_and_hidden_ones_counted(tmp_path: Path) -> None:
    (tmp_path / "mia" / ".ipynb_checkpoints").mkdir(parents=True)
    good = ("mia/EX00_Start.IPYNB", "ex00_start (2) Zoë 夏.ipynb", "ex00_start.ipynb")
    hidden = ("mia/.ipynb_checkpoints/ex00_start-checkpoint.ipynb", "mia/._ex00_start.ipynb")
    for name in (*good, *hidden, "mia/homework.ipynb", "ex00_start.ipynb.txt"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "mia" / "ex01_vae.ipynb").mkdir()  # a folder is no file
    (tmp_path / "ex00_start.pdf").write_bytes(b"%PDF")
    (tmp_path / "own.ipynb").write_text('{"nbformat": 4, "cells": []}')
    (tmp_path / "notes.txt").write_text("x")
    found = find_hand_ins(tmp_path, MASTERS)
    assert {(p.relative_to(tmp_path).as_posix(), m.name) for p, m in found.hand_ins} == {(g, START.name) for g in good}
    reasons = {path.name: why for path, why in found.stray}
    assert set(reasons) == {"homework.ipynb", "ex00_start.ipynb.txt", "ex00_start.pdf", "own.ipynb"}
    assert "looks like a hand-in of ex00_start" in reasons["homework.ipynb"]
    assert "no .ipynb" in reasons["ex00_start.pdf"] and "not a hand-in" in reasons["own.ipynb"]
    assert found.hidden == 2
    with pytest.raises(TeachingError, match="no folder"):
        find_hand_ins(tmp_path / "nowhere", MASTERS)


def test_one_row_says_what_is_wrong_and_the_table_grows_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class_, out = tmp_path / "class", tmp_path / "new" / "grades.csv"
    for who, text in (("ana", TEXT[:300]), ("ben", TEXT), ("cat", TEXT), ("dan", TEXT), ("eve", TEXT)):
        (class_ / who).mkdir(parents=True)
        (class_ / who / "ex00_start.ipynb").write_text(text)
    swapped = json.dumps(edition_of(VAE, "student"))
    (class_ / "cat" / "ex00_start.ipynb").write_text(swapped)
    (class_ / "dan" / "homework.ipynb").write_text(TEXT)
    asked = []

    def run(notebook: NotebookNode, checks: list[int], limits: Limits) -> list[dict[str, str]]:
        asked.append(limits)
        assert [notebook.cells[i].source for i in checks] == [START.cells[e.check].source for e in START.exercises]
        if len(asked) == 2:
            raise TeachingError("its kernel died")
        return [{"status": "right", "message": "Right:\n'a', \"b\""}] * len(checks)

    monkeypatch.setattr(grade, "run_confined", run)
    assert grade.main([str(class_), "--out", str(out), "--timeout", "7"]) == 0
    table = pd.read_csv(out).fillna("")
    by_file = table.groupby("file")["status"].apply(list).to_dict()
    lost, right = [grade.NOT_GRADED], ["right"] * len(START.exercises)
    assert by_file == {
        "ana/ex00_start.ipynb": lost, "ben/ex00_start.ipynb": right, "cat/ex00_start.ipynb": lost,
        "dan/ex00_start.ipynb": lost, "dan/homework.ipynb": lost, "eve/ex00_start.ipynb": right,
    }  # fmt: skip
    messages = table.set_index("file")["message"]
    assert "cut off" in messages["ana/ex00_start.ipynb"] and "its kernel died" in messages["dan/ex00_start.ipynb"]
    assert "those of ex01_vae" in messages["cat/ex00_start.ipynb"]
    assert len(out.read_text().splitlines()) == 1 + len(table) and asked[0].cell_s == 7
    capsys.readouterr()

    def stopped(*arguments: object) -> list[dict[str, str]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(grade, "run_confined", stopped)
    assert grade.main([str(class_), "--out", str(out)]) == 130
    assert out.read_text().splitlines()[1].startswith("ana/") and "rows that are written are kept" in (
        capsys.readouterr().err
    )
    before = out.read_text()
    (tmp_path / "empty").mkdir()
    assert grade.main([str(tmp_path / "empty"), "--out", str(out)]) == 2 and out.read_text() == before


def _notebook(*sources: str) -> NotebookNode:
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def test_a_notebook_runs_apart_with_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, network, questions, folder; another python3 on Jupyter's path is not asked."""
    place = tmp_path / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        sources = (
            "from mobivid_core.lab.teaching.verdict import Verdict\nVerdict('a', 'right', 'yes')",
            "data = bytearray(6 * 2**30)",
            "input('name? ')",
            connect,
            "open('here.txt', 'w').write('x'); import os; raise ValueError(os.getcwd())",
        )
        rows = run_confined(_notebook(*sources), list(range(len(sources))), Limits(60, 280, memory_gb=3))
    assert rows[0] == {"status": "right", "message": "Right: yes"}
    assert [row["status"] for row in rows[1:]] == ["open"] * 4
    assert "MemoryError" in rows[1]["message"] and "StdinNotImplementedError" in rows[2]["message"]
    if without_network():
        assert "unreachable" in rows[3]["message"].lower() or "OSError" in rows[3]["message"]
    assert str(Path.cwd()) not in rows[4]["message"] and not Path("here.txt").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [("x = 1\nwhile True: pass", "a cell took longer than 3 s: x = 1"), ("import os; os._exit(7)", "kernel died")],
)
def test_endless_loops_and_dead_kernels_end(source: str, message: str) -> None:
    with pytest.raises(TeachingError, match=message):
        run_confined(_notebook("1", source, "2"), [0], Limits(cell_s=3, total_s=250))


def test_a_notebook_has_so_much_time_in_all() -> None:
    with pytest.raises(TeachingError, match="longer than 0.5 s in all"):
        run_confined(_notebook("1"), [0], Limits(total_s=0.5))


def _mutated(rng: random.Random) -> bytes:
    """A hand-in with something changed: bytes, or values of any kind in any place."""
    if rng.random() < 0.4:
        data = bytearray(TEXT.encode())
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        return bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.2 else data)
    odd = [None, True, -1, 3, 1e308, float("nan"), "", "x" * 99, "\ud800", [], [[]], ["a", 1], {}, {"tags": "check"}]
    values = json.loads(TEXT)
    for _ in range(rng.randint(1, 4)):
        place: object = values
        while isinstance(place, (dict, list)) and place:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or rng.random() < 0.3:
                place[key] = copy.deepcopy(rng.choice(odd))
                break
            place = place[key]
    if rng.random() < 0.2:
        values["nbformat"] = rng.choice([1, 2, 3, 5, -1, True, "4"])
    return json.dumps(values).encode()


def test_whatever_a_file_holds_only_the_projects_own_errors_come_out(tmp_path: Path) -> None:
    rng, path, read = random.Random(0), tmp_path / "ex00_start.ipynb", 0
    end = time.monotonic() + 8
    for _ in range(4000):
        if time.monotonic() > end:
            break
        path.write_bytes(_mutated(rng))
        try:
            notebook = read_hand_in(path)
            json.dumps(notebook).encode()
            kin(notebook, MASTERS)
            read += bool(find_checks(notebook, START))
        except TeachingError as error:
            assert len(str(error)) < 500
    assert read and hand_ins.MAX_BYTES > len(TEXT)
