"""Which modules a notebook depends on, and which parameters it takes."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mobivid_core.errors import ParameterError, RunError
from mobivid_core.lab.runner.chain import Chain
from mobivid_core.lab.runner.fingerprint import (
    READ_THROUGH,
    READS_RESULTS,
    changed,
    data_hashes,
    files_beside,
    module_files,
)
from mobivid_core.lab.runner.source import declared, parse_value, read_chain, read_notebook, resolve
from mobivid_core.measure.reference import MEASURING_CODE
from mobivid_core.paths import project_root

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture()
def package(tmp_path: Path) -> Path:
    files = {
        "__init__": "",
        "alone": "import os\n",
        "a/__init__": "",
        "a/direct": "from ..lazy import thing\n",
        "a/sibling": "X = 1\n",
        "a/relative": "from . import sibling\n",
        "lazy": "def thing():\n    from pkg.a import sibling\n",
        "cycle": "import pkg.cycle2\n",
        "cycle2": "from pkg import cycle\n",
    }
    for name, source in files.items():
        path = tmp_path / "pkg" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path / "pkg"


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import os, pkgother", set()),
        ("import pkg.alone", {"", "alone"}),
        ("from pkg import alone", {"", "alone"}),
        ("from pkg.a import direct", {"", "a", "a.direct", "lazy", "a.sibling"}),
        ("def f():\n    from pkg.a.relative import sibling as s", {"", "a", "a.relative", "a.sibling"}),
        ("from pkg.cycle import X", {"", "cycle", "cycle2"}),
    ],
)
def test_imports_are_followed_through_functions_relative_names_and_cycles(
    package: Path, code: str, modules: set[str]
) -> None:
    assert module_files([ast.parse(code)], package).keys() == modules


def test_tables_beside_imported_modules_count(package: Path) -> None:
    """Those of other folders, notes and compiled files do not."""
    for name in ("a/table.csv", "a/job.sh", "a/README.md", "a/direct.pyc", "b/table.csv"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("1")
    modules = module_files([ast.parse("import pkg.a.sibling")], package)
    assert [p.relative_to(package).as_posix() for p in files_beside(modules.values())] == ["a/job.sh", "a/table.csv"]


@pytest.mark.parametrize(("folder", "reader"), [(f, r) for f, readers in READ_THROUGH.items() for r in readers])
def test_records_and_students_count_only_where_they_are_read(tmp_path: Path, folder: str, reader: str) -> None:
    for name in (f"{folder}/a.csv", "clips/a.mp4", "checkpoints/vae/a.json", "checkpoints/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    for modules in (["data.film"], []):
        assert data_hashes(tmp_path, modules).keys() == {"clips", "checkpoints/vae"}
    before = data_hashes(tmp_path, [reader])
    (tmp_path / folder / "a.csv").write_text("2")
    assert changed(before, data_hashes(tmp_path, [reader])) == [folder]


def test_names_of_modules_and_folders_resolve() -> None:
    """Names in strings that a move of modules would leave behind without an error."""
    package = project_root() / "mobivid_core"
    readers = [reader for readers in READ_THROUGH.values() for reader in readers]
    assert all((package / f"{name.replace('.', '/')}.py").is_file() for name in [*readers, READS_RESULTS])
    assert all(list((package / folder).glob("*.py")) for folder in MEASURING_CODE)


def _notebook(folder: Path, name: str, *cells: str) -> Path:
    nodes = [new_code_cell(source) for source in cells]
    nodes[0].metadata["tags"] = ["parameters"]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=nodes, metadata=KERNEL), path)
    return path


def test_parameters_are_checked_against_the_notebooks_that_declare_them(tmp_path: Path) -> None:
    _notebook(tmp_path, "01_a", 'PROFILE = "laptop"\nSEED = 0\nRATE = 0.5', "OTHER = 3")
    _notebook(tmp_path, "02_b", 'PROFILE = "laptop"\nNAME = "x"', "pass")
    chain = read_chain(tmp_path)
    assert declared(chain[0]) == {"PROFILE": "laptop", "SEED": 0, "RATE": 0.5}
    given = [("RATE", "2"), ("NAME", "007")]
    assert resolve(chain, "smoke", given) == [{"PROFILE": "smoke", "RATE": 2.0}, {"PROFILE": "smoke", "NAME": "007"}]
    with pytest.raises(ParameterError, match="unknown parameter 'OTHER'. Known are: 01_a: SEED, RATE; 02_b: NAME"):
        resolve(chain, "smoke", [("OTHER", "1")])
    with pytest.raises(ParameterError, match="01_a: the parameter SEED is of type int"):
        resolve(chain, "smoke", [("SEED", "0.5")])
    with pytest.raises(ParameterError, match="SEED is of type int .* got 'true'"):
        resolve(chain, "smoke", [("SEED", "true")])


def test_a_folder_counts_by_its_files_whether_given_or_written_down(tmp_path: Path, monkeypatch) -> None:
    """Other videos in the same folder are another input; a relative folder is meant as the command's user sees it."""
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path / "runs"))
    mine, notebooks = tmp_path / "mine", tmp_path / "notebooks"
    mine.mkdir()
    notebooks.mkdir()
    (mine / "a.mp4").write_bytes(b"one")
    (mine / "gone.mp4").symlink_to(tmp_path / "nowhere")
    _notebook(notebooks, "01_a", 'PROFILE = "laptop"\nFOLDER = ""')
    _notebook(notebooks, "02_b", 'PROFILE = "laptop"\nFOLDER = "../mine"')
    monkeypatch.chdir(tmp_path)
    chain = Chain("smoke", notebooks=notebooks, data=tmp_path / "data")
    first, second = read_chain(notebooks)
    given = resolve([first], "smoke", [("FOLDER", "mine")])[0]
    assert given["FOLDER"] == str(mine)
    unset, before, written = chain.parts(first, {}), chain.parts(first, given), chain.parts(second, {})
    (mine / "a.mp4").write_bytes(b"two")  # the same name and length
    assert changed(before, chain.parts(first, given)) == ["files of your folder"]
    assert changed(written, chain.parts(second, {})) == ["files of your folder"]
    assert unset == chain.parts(first, {})


def test_a_parameter_computed_from_another_is_refused(tmp_path: Path) -> None:
    path = _notebook(tmp_path, "01_a", "STEPS = 40\nEVALS = 2 * STEPS")
    with pytest.raises(ParameterError, match="EVALS = 2 \\* STEPS is not a literal"):
        declared(read_notebook(path))


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("-1.5", -1.5), ("True", True), ("[1]", [1]), ("a b", "a b")])
def test_command_line_values(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_registered_ids_are_found_in_the_source(tmp_path: Path) -> None:
    code = '%matplotlib inline\nfor i in range(2):\n    ctx.results.table("b", f)\nplt.figure(figsize=(1, 2))'
    path = _notebook(tmp_path, "01_a", 'results.figure("a", fig)', code)
    found = read_notebook(path).registered()
    assert [(r.result_id, r.kind, r.cell) for r in found] == [("a", "figure", 0), ("b", "table", 1)]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("results.headline(name, 1)", "needs its id as a literal"),
        ('results.headline("a", 1)\nresults.table("a", f)', "'a' is registered twice"),
        ("a = = 1", "cell 0, is not valid Python"),
    ],
)
def test_bad_sources_are_named(tmp_path: Path, code: str, text: str) -> None:
    with pytest.raises(RunError, match=text):
        read_notebook(_notebook(tmp_path, "01_a", code)).registered()


def test_unreadable_notebooks_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no numbered notebooks"):
        read_chain(tmp_path)
    (tmp_path / "01_a.ipynb").write_text("{")
    with pytest.raises(RunError, match="01_a.ipynb is not a readable notebook"):
        read_chain(tmp_path)


def test_an_id_registered_by_two_notebooks_is_refused(tmp_path: Path) -> None:
    for name in ("01_a", "02_b"):
        _notebook(tmp_path, name, 'results.headline("x", 1)')
    with pytest.raises(RunError, match="01_a and 02_b both register 'x'"):
        read_chain(tmp_path)
