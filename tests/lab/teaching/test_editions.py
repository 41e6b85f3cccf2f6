"""Masters are well-formed, and both editions hold what they should and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mobivid_core.errors import ParameterError, TeachingError
from mobivid_core.lab.runner.source import read_chain
from mobivid_core.lab.teaching.editions import edition_of, main, placeholder, write_editions
from mobivid_core.lab.teaching.masters import (
    Master,
    bound_names,
    read_master,
    read_masters,
    tag_of,
    used_names,
)
from mobivid_core.paths import notebooks_dir

MASTERS = read_masters()
every_master = pytest.mark.parametrize("master", MASTERS, ids=lambda master: master.name)

SOLVED = "secret_step = 41 + 1\nanswer = secret_step"


def make_master(folder: Path, *changes: tuple[int, str, object]) -> Path:
    """A small master; each change is (cell, "tags" or "source", new value)."""
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("given = 1"),
        new_markdown_cell("## 1. Count", metadata={"tags": ["exercise"]}),
        new_code_cell(SOLVED, metadata={"tags": ["solution"]}),
        new_code_cell("assert answer == 42", metadata={"tags": ["check"]}),
        new_markdown_cell("note", metadata={"tags": ["instructor"]}),
        new_code_cell("print(given)"),
    ]
    for index, what, value in changes:
        if what == "tags":
            cells[index].metadata["tags"] = value
        else:
            cells[index].source = value
    path = folder / "ex00_small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_each_main_notebook_has_a_master_that_links_to_it() -> None:
    main_notebooks = read_chain(notebooks_dir())
    assert [m.name[2:4] for m in MASTERS] == [n.name[:2] for n in main_notebooks]
    for master, notebook in zip(MASTERS, main_notebooks, strict=True):
        assert f"](../{notebook.name}.ipynb)" in master.cells[0].source


@every_master
def test_a_master_has_exercises_notes_and_no_outputs(master: Master) -> None:
    assert len(master.exercises) >= 2
    assert sum(tag_of(cell) == "instructor" for cell in master.cells) >= len(master.exercises)
    for cell in master.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
        for target in re.findall(r"\]\(([^)#\s]+)\)", cell.source):
            assert (notebooks_dir() / "teaching" / target).exists(), target


@every_master
def test_the_students_edition_leaks_nothing(master: Master) -> None:
    student = edition_of(master, "student")
    text = "\n".join(cell.source for cell in student.cells)
    for index, cell in enumerate(master.cells):
        if tag_of(cell) == "instructor":
            assert cell.source not in text
        if tag_of(cell) == "solution":
            given = "\n".join(c.source for i, c in enumerate(master.cells) if i != index)
            kept = placeholder(
                cell.source, next(master.cells[e.check].source for e in master.exercises if e.solution == index)
            )
            body = [line.strip() for line in cell.source.splitlines() if line.strip() not in kept]
            assert body, "the placeholder keeps the whole solution"
            for line in body:
                assert line not in text or line in given, f"{line!r} of the solution is in the student's edition"
    tags = {tag for cell in student.cells for tag in cell.metadata.get("tags", [])}
    assert tags == {"exercise", "answer", "check"}
    assert all(not cell.outputs for cell in student.cells if cell.cell_type == "code")


@every_master
def test_the_instructors_edition_holds_everything(master: Master) -> None:
    made = edition_of(master, "instructor").cells
    assert len(made) == len(master.cells)
    for ours, theirs in zip(made, master.cells, strict=True):
        assert ours.source == theirs.source or "](../" in theirs.source
    assert "`notebooks/0" in made[0].source and "](" not in made[0].source, "an edition may lie anywhere"


def test_a_value_becomes_a_gap_that_stops_and_a_function_keeps_its_signature() -> None:
    gap = placeholder(
        'def area(r: float) -> float:\n    """Area."""\n    return 3 * r\n\n\nside = area(2)', "check(area, side)"
    )
    assert 'def area(r: float) -> float:\n    """Area."""\n    unsolved("area")' in gap
    assert "side = ...\nrequire(side=side)" in gap and "3 * r" not in gap and "area(2)" not in gap
    scope: dict = {}
    with pytest.raises(Exception, match="`side`"):
        exec(gap, scope)
    with pytest.raises(Exception, match="`area` is not written yet"):
        scope["area"](1.0)


def test_only_names_that_the_check_reads_are_asked_for() -> None:
    assert bound_names("a = [k for k in x]\nfor b in y:\n    pass\nimport c") == ["a", "b"]
    assert "secret_step" not in placeholder(SOLVED, "check(answer)")


def test_a_cells_own_loop_variables_are_not_read_from_the_notebook() -> None:
    source = "total = [f(name) for name in names]\ndef g(x):\n    return x + shift"
    assert used_names(source) == {"f", "names", "shift"}


def test_writing_twice_changes_nothing_and_keeps_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = write_editions("student", out)
    first = {path: path.read_bytes() for path in written}
    assert len(written) == len(MASTERS) and write_editions("student", out) == written
    assert {path: path.read_bytes() for path in written} == first

    notebook = json.loads(written[0].read_text())
    notebook["cells"][-1]["source"] = "a student's work"
    written[0].write_text(json.dumps(notebook))
    with pytest.raises(TeachingError, match="somebody's work"):
        write_editions("student", out)
    assert "a student's work" in written[0].read_text()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TeachingError, match="other files .thesis.txt.*empty"):
        write_editions("instructor", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(TeachingError, match="is a file"):
        write_editions("instructor", tmp_path / "thesis.txt")
    write_editions("student", tmp_path / "out")
    with pytest.raises(TeachingError, match="not this edition"):
        write_editions("instructor", tmp_path / "out")


def test_an_unknown_edition_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="student and instructor"):
        write_editions("teacher", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((4, "tags", []), "has the tags exercise, solution; each exercise needs"),
        ((3, "tags", ["check"]), "has the tags exercise, check, check"),
        ((3, "tags", ["solutoin"]), "tagged 'solutoin'; the tags are exercise"),
        ((2, "tags", []), "each exercise needs one cell tagged"),
        ((4, "source", "print(given)"), "reads nothing that its solution defines"),
        ((6, "source", "print(answer)"), "needs 'answer', which the solution of '1. Count' defines"),
        ((1, "source", "given ="), "cell 1, is not valid Python"),
    ],
)
def test_a_malformed_master_is_refused(tmp_path: Path, change: tuple, message: str) -> None:
    assert read_master(make_master(tmp_path)).exercises[0].title == "1. Count"
    with pytest.raises(TeachingError, match=message):
        read_master(make_master(tmp_path, change))


def test_what_is_no_notebook_or_no_master_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeachingError, match="no masters"):
        read_masters(tmp_path)
    (tmp_path / "ex00_small.ipynb").write_text("not json")
    with pytest.raises(TeachingError, match="is not a readable notebook"):
        read_masters(tmp_path)
    (tmp_path / "ex00_small.ipynb").unlink()
    make_master(tmp_path, *((i, "tags", []) for i in range(7)))
    with pytest.raises(TeachingError, match="has no exercise"):
        read_masters(tmp_path)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--edition", "student", "--out", str(tmp_path / "out")]) == 0
    assert f"{len(MASTERS)} notebooks, student edition" in capsys.readouterr().out
    assert main(["--edition", "pupil", "--out", str(tmp_path / "new")]) == 2
    assert "unknown edition 'pupil'" in capsys.readouterr().err
    (tmp_path / "out" / "other.txt").write_text("")
    assert main(["--edition", "student", "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1


def test_the_instructors_guide_names_every_exercise_notebook_and_its_links_exist() -> None:
    guide = (notebooks_dir() / "teaching" / "INSTRUCTORS.md").read_text()
    targets = re.findall(r"\]\(([^)#\s]+)\)", guide)
    assert {f"{master.name}.ipynb" for master in MASTERS} <= set(targets)
    assert all((notebooks_dir() / "teaching" / target).exists() for target in targets)
