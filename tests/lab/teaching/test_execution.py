"""Masters solve themselves; students' editions run to a friendly word; grading tells the two apart."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from mobivid_core.errors import TeachingError
from mobivid_core.lab.teaching.confined import Limits
from mobivid_core.lab.teaching.editions import edition_of, write_editions
from mobivid_core.lab.teaching.grade import grade_notebook, main
from mobivid_core.lab.teaching.hand_ins import find_hand_ins
from mobivid_core.lab.teaching.masters import Master, read_masters

MASTERS = {master.name: master for master in read_masters()}
every_master = pytest.mark.parametrize("master", MASTERS.values(), ids=MASTERS)


@every_master
def test_the_solutions_pass_their_checks(master: Master, run_notebook, capsys: pytest.CaptureFixture) -> None:
    verdicts, gaps = run_notebook(master.cells)
    assert not gaps and len(verdicts) == len(master.exercises)
    assert all(verdict.ok for verdict in verdicts), verdicts


@every_master
def test_unsolved_exercises_are_said_to_be_open(master: Master, run_notebook) -> None:
    verdicts, gaps = run_notebook(edition_of(master, "student").cells)
    assert [verdict.status for verdict in verdicts] == ["open"] * len(master.exercises)
    assert all("not solved yet" in verdict.message for verdict in verdicts)
    assert all("put your answer in place of `...`" in gap for gap in gaps)


def test_grading_refuses_what_it_cannot_grade(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(TeachingError, match="no handed-in notebooks"):
        find_hand_ins(tmp_path, [*MASTERS.values()])
    assert main([str(tmp_path)]) == 2 and "ex02_flow" in capsys.readouterr().err
    master = MASTERS["ex05_distillation"]
    notebook = edition_of(master, "student")
    notebook.cells = [cell for cell in notebook.cells if "check" not in cell.metadata.get("tags", [])]
    with pytest.raises(TeachingError, match="check cell of '1. A step.*missing"):
        grade_notebook(notebook, master, Limits())


@pytest.mark.slow
def test_grades_in_a_kernel(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_editions("student", tmp_path / "student")
    write_editions("instructor", tmp_path / "instructor")
    for who, edition in (("ana", "instructor"), ("ben", "student")):
        (tmp_path / "in" / who).mkdir(parents=True)
        notebook = nbformat.read(tmp_path / edition / "ex06_phone.ipynb", as_version=4)
        for cell in notebook.cells:
            if "check" in cell.metadata.get("tags", []):
                cell.source = "print('Right: everything')"  # a check that a student bent
        nbformat.write(notebook, tmp_path / "in" / who / f"{who}_ex06_phone.ipynb")
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "grades.csv")]) == 0
    import pandas as pd

    grades = pd.read_csv(tmp_path / "grades.csv")
    assert grades.groupby(grades["file"].str[:3])["status"].apply(list).to_dict() == {
        "ana": ["right"] * 3,
        "ben": ["open"] * 3,
    }


@pytest.mark.slow
@every_master
def test_the_instructors_edition_runs_in_a_kernel(master: Master) -> None:
    rows = grade_notebook(edition_of(master, "instructor"), master, Limits(cell_s=600))
    assert [row["status"] for row in rows] == ["right"] * len(master.exercises), rows
