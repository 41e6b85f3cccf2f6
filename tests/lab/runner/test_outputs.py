"""Outputs copied in place belong to their source and hold nothing of the machine that made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mobivid_core.errors import ParameterError, RunError
from mobivid_core.lab.runner.chain import Chain
from mobivid_core.lab.runner.outputs import check_committable, copy_outputs
from mobivid_core.lab.runner.record import changed_results
from mobivid_core.lab.runner.source import cell_hash
from mobivid_core.paths import project_root


def _pair(tmp_path: Path, outputs: list) -> tuple[Path, Path]:
    cells = [new_markdown_cell("Words."), new_code_cell('PROFILE = "laptop"'), new_code_cell("show()")]
    source, executed = tmp_path / "01_a.ipynb", tmp_path / "executed.ipynb"
    nbformat.write(new_notebook(cells=cells), source)
    injected = new_code_cell('PROFILE = "laptop"', metadata={"tags": ["injected-parameters"]})
    last = new_code_cell("show()", outputs=outputs, execution_count=9, metadata={"papermill": {"duration": 3}})
    made = new_notebook(cells=[*cells[:2], injected, last], metadata={"papermill": {"duration": 3}})
    nbformat.write(made, executed)
    return source, executed


def test_outputs_are_copied_cleaned_and_tied_to_their_source(tmp_path: Path) -> None:
    bar = "\r 50%|#####     | 1/2\r100%|##########| 2/2\n"
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "HBox()"}
    outputs = [
        new_output("stream", name="stdout", text=f"saved {project_root()}/figures/a.png\n"),
        new_output("stream", name="stdout", text="object at 0x7f1a280adda0\n"),
        new_output("stream", name="stderr", text=bar),
        new_output("display_data", data=widget),
        new_output("execute_result", data={"text/plain": "3"}, execution_count=9),
    ]
    source, executed = _pair(tmp_path, outputs)
    copy_outputs(source, executed)
    node = nbformat.read(source, as_version=4)
    nbformat.validate(node)
    assert [c.cell_type for c in node.cells] == ["markdown", "code", "code"]
    shown = node.cells[2]
    assert [o.output_type for o in shown.outputs] == ["stream", "execute_result"]
    assert shown.outputs[0].text == "saved ./figures/a.png\nobject\n"
    assert shown.execution_count == shown.outputs[1].execution_count == 2
    assert shown.metadata == {"mobivid": {"source_sha256": cell_hash("show()")}}
    assert "papermill" not in node.metadata
    before = source.read_bytes()
    copy_outputs(source, executed)
    assert source.read_bytes() == before


def test_outputs_of_other_code_are_refused(tmp_path: Path) -> None:
    source, executed = _pair(tmp_path, [])
    node = nbformat.read(source, as_version=4)
    node.cells[2].source = "show(2)"
    nbformat.write(node, source)
    with pytest.raises(RunError, match="the code of 01_a changed since"):
        copy_outputs(source, executed)
    with pytest.raises(RunError, match="has no executed copy"):
        copy_outputs(source, tmp_path / "none.ipynb")


def test_only_default_runs_are_committed(tmp_path: Path) -> None:
    check_committable(Chain("laptop"))
    for chain in (Chain("smoke"), Chain("laptop", given=[("SEED", "1")])):
        with pytest.raises(ParameterError, match="keeps what a reader gets by default"):
            check_committable(chain)


def test_a_run_that_changed_committed_results_says_what_that_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobivid_core.lab.runner.record.project_root", lambda: tmp_path)
    figures = tmp_path / "figures"
    figures.mkdir()
    assert changed_results(figures) == []  # no git, nothing to tell
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a"]
    (figures / "a.csv").write_text("1")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    assert changed_results(figures) == []
    (figures / "a.csv").write_text("2")
    (figures / "b.csv").write_text("3")
    said = changed_results(figures)
    assert said[0].startswith("2 files in figures/ differ from the committed ones")
    restore = said[2].split(":", 1)[1].strip()
    subprocess.run(restore, shell=True, check=True, cwd=tmp_path)
    assert changed_results(figures) == [] and not (figures / "b.csv").exists()
