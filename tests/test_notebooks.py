"""Every notebook has the anatomy that readers and the runner rely on, and its outputs belong to its code."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from mobivid_core.lab.reviews import QUESTIONS
from mobivid_core.lab.rules import rules
from mobivid_core.lab.runner.chain import Chain
from mobivid_core.lab.runner.source import NotebookSource, cell_hash, declared, read_chain
from mobivid_core.paths import notebooks_dir, project_root

CHAIN = read_chain(notebooks_dir())
every_notebook = pytest.mark.parametrize("notebook", CHAIN, ids=lambda notebook: notebook.name)

EXPECTED = [
    "00_start_here", "01_vae_compression", "02_server_dit", "03_sensitivity_analysis", "04_tri_level_pruning",
    "05_adversarial_distillation", "06_iphone_benchmark", "07_scorecard",
]  # fmt: skip
FORBIDDEN = (r"^\s*[!]", r"%pip|%cd|%%bash", r"os\.chdir", r"filterwarnings|simplefilter", r"/home/|/Users/")
#: Bytes of one embedded output: bigger ones make a page slow on a code host.
LARGEST_OUTPUT = 3_000_000
LARGEST_IMAGE = 200_000  # base64 of 150 kB


def _code(notebook: NotebookSource) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_chain_is_complete() -> None:
    assert [notebook.name for notebook in CHAIN] == EXPECTED


@every_notebook
def test_parameters_are_few_literals_with_the_profile_first(notebook: NotebookSource) -> None:
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0].cell_type == "code"
    assert tagged[0] is next(c for c in notebook.cells if c.cell_type == "code"), "parameters come before other code"
    names = list(declared(notebook))  # raises unless every default is a literal
    assert names[:2] == ["PROFILE", "SEED"] and len(names) <= 5
    assert declared(notebook)["PROFILE"] == "laptop"
    statements = ast.parse(tagged[0].source).body
    assert all(isinstance(s, ast.Assign) for s in statements) and len(statements) == len(names)
    assert all("#" in line for line in tagged[0].source.splitlines() if line.strip()), "a comment on each parameter"


@every_notebook
def test_the_setup_follows_and_names_the_notebook(notebook: NotebookSource) -> None:
    setup = _code(notebook)[1]
    assert f'start("{notebook.name}", PROFILE, SEED)' in setup
    assert len(setup.strip().splitlines()) < 15


@every_notebook
def test_the_first_cell_says_what_the_reader_gets(notebook: NotebookSource) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    parts = {"goals": "you can|you will|learn", "cost": r"\| ?profile", "evidence": "evidence|measured"}
    for part, pattern in parts.items():
        assert re.search(pattern, first.source, re.IGNORECASE), f"the first cell lacks {part}"
    everything = "\n".join(cell.source for cell in notebook.cells)
    assert re.search("→|you are here|pipeline_figure", everything), "nothing says where in the pipeline this is"


@every_notebook
def test_nothing_depends_on_the_machine_or_the_network(notebook: NotebookSource) -> None:
    for source in _code(notebook):
        for forbidden in FORBIDDEN:
            assert not re.search(forbidden, source, re.MULTILINE), f"{forbidden!r} in:\n{source}"
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert not re.search(r"!\[[^\]]*\]\(https?:", prose), "images must not be remote"


@every_notebook
def test_the_package_does_the_work(notebook: NotebookSource) -> None:
    functions = [n for tree in notebook.syntax() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert len(functions) <= 2, "functions belong in the package, where they are tested"


@every_notebook
def test_links_to_other_files_exist(notebook: NotebookSource) -> None:
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#\s]+)\)", prose):
        if "://" not in target:
            assert (notebook.path.parent / target).exists(), f"{notebook.name} links to {target}, which is not there"


@every_notebook
def test_the_kernel_is_the_plain_python3(notebook: NotebookSource) -> None:
    metadata = nbformat.read(notebook.path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    assert "papermill" not in metadata and "widgets" not in metadata


def test_result_ids_are_unique_in_the_project() -> None:
    counts = Counter(r.result_id for notebook in CHAIN for r in notebook.registered())
    assert not [name for name, count in counts.items() if count > 1]
    assert all(notebook.registered() for notebook in CHAIN), "every notebook registers something"


def test_the_scorecard_reads_numbers_that_some_notebook_records() -> None:
    registered = {r.result_id for notebook in CHAIN for r in notebook.registered()}
    wanted = {rule.headline for rule in rules().values()} | {q.headline for q in QUESTIONS.values()}
    wanted |= {result for question in QUESTIONS.values() for result in question.results}
    wanted -= {""}
    assert wanted <= registered, f"no notebook registers {sorted(wanted - registered)}"


@every_notebook
def test_outputs_were_made_by_the_code_beside_them(notebook: NotebookSource) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any(cell.get("outputs") or cell.metadata.get("mobivid") for cell in code):
        return  # cleared as a whole when its code changed, and not run since: nothing stands beside the wrong code
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            made_by = cell.metadata.get("mobivid", {}).get("source_sha256")
            assert made_by == cell_hash(cell.source), (
                f"{notebook.name}, cell {index}, changed since its output was made: run "
                "`mobivid reproduce --profile laptop --commit-outputs`"
            )


@every_notebook
def test_outputs_are_clean_and_modest(notebook: NotebookSource) -> None:
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            where = f"{notebook.name}, cell {index}"
            text = str(output)
            assert output.output_type != "error", where
            assert len(text) < LARGEST_OUTPUT, f"{where}: an output of {len(text) / 1e6:.1f} MB"
            images = [data for kind, data in output.get("data", {}).items() if kind in ("image/png", "image/jpeg")]
            assert all(len(image) < LARGEST_IMAGE for image in images), f"{where}: a large image"
            assert str(project_root()) + "/" not in text and "site-packages" not in text, f"{where} shows a local path"
            assert "widget-view" not in text, f"{where} holds a widget, which vanishes without its session"


@pytest.mark.slow
def test_the_whole_chain_runs_at_smoke(runs: Path) -> None:
    record = Chain("smoke").run()
    assert {entry["status"] for entry in record.notebooks.values()} == {"run"}
    assert {entry["status"] for entry in Chain("smoke").run().notebooks.values()} == {"cached"}


@pytest.mark.slow
def test_plain_papermill_runs_one_notebook_from_another_folder(runs: Path, tmp_path: Path) -> None:
    import papermill

    source, target = notebooks_dir() / "07_scorecard.ipynb", tmp_path / "out.ipynb"
    papermill.execute_notebook(str(source), str(target), {"PROFILE": "smoke"}, cwd=str(tmp_path))
    assert (runs / "smoke" / "figures" / "scorecard_claims.csv").is_file()
