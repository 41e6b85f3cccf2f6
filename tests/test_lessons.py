"""A notebook is a lesson: short cells, one template, and every cell can be run again after the last one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from statistics import median

import nbformat
import pytest
from nbclient import NotebookClient

from mobivid_core.lab.runner.source import NotebookSource, read_chain
from mobivid_core.paths import notebooks_dir

CHAIN = read_chain(notebooks_dir())
LONGEST_LINE, LONGEST_CELL, MEDIAN_CELL = 110, 20, 6
FEWEST_WORDS, MOST_WORDS = 900, 1400
TABLES_IN_THE_STORY = 5
MORE_TABLES = "## More tables"
every_lesson = pytest.mark.parametrize("notebook", CHAIN, ids=lambda notebook: notebook.name)


def _code(notebook: NotebookSource) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def _prose(notebook: NotebookSource) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# --- what a cell reads, binds and changes -------------------------------------------------------------------------


def _loads(node: ast.AST, hidden: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names that an expression or a simple statement reads from outside itself."""
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        own = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        hidden = hidden | own
    elif isinstance(node, (ast.Lambda, ast.FunctionDef)):
        arguments = node.args
        hidden = hidden | {a.arg for a in [*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs]}
        if isinstance(node, ast.FunctionDef):
            hidden = hidden | {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in hidden:
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _loads(child, hidden)


def _owner(target: ast.AST) -> str | None:
    while isinstance(target, (ast.Subscript, ast.Attribute)):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None


class Cell:
    """Reads, binds and changes of one cell.

    Attributes:
        reads: Names taken from other cells.
        binds: Name -> how it was bound; equal imports are equal bindings.
        changes: Names of other cells whose object this cell changes, as in `x["a"] = 1` or `x += 1`.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.reads: set[str] = set()
        self.binds: dict[str, str] = {}
        self.changes: set[str] = set()
        for statement in tree.body:
            self._walk(statement)

    def _read(self, node: ast.AST | None) -> None:
        if node is not None:
            self.reads |= {name for name in _loads(node) if name not in self.binds}

    def _bind(self, target: ast.AST, how: str) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.binds[node.id] = how
        if isinstance(target, (ast.Subscript, ast.Attribute)):
            self._read(target)
            if _owner(target) not in self.binds:
                self.changes.add(_owner(target) or "?")

    def _walk(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                self.binds[alias.asname or alias.name.split(".")[0]] = (
                    ast.unparse(node)
                    if not isinstance(node, ast.ImportFrom)
                    else f"from {node.module} import {alias.name}"
                )
        elif isinstance(node, ast.AugAssign):
            self._read(node.value)
            name = _owner(node.target)
            if name not in self.binds:
                self.changes.add(name or "?")
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._read(node.value)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._bind(target, f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            self._read(node)
            self.binds[node.name] = ast.unparse(node)
        else:
            self._compound(node)

    def _compound(self, node: ast.stmt) -> None:
        if isinstance(node, ast.For):
            self._read(node.iter)
            self._bind(node.target, f"for {node.lineno}")
        elif isinstance(node, ast.With):
            for item in node.items:
                self._read(item.context_expr)
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, f"with {node.lineno}")
        elif isinstance(node, (ast.If, ast.While)):
            self._read(node.test)
        elif not isinstance(node, ast.Try):
            self._read(node)
        for handler in getattr(node, "handlers", []):
            if handler.name:
                self.binds[handler.name] = f"except {handler.lineno}"
            for inner in handler.body:
                self._walk(inner)
        for part in ("body", "orelse", "finalbody"):
            for inner in getattr(node, part, []):
                self._walk(inner)


def cannot_run_again(trees: list[ast.Module]) -> list[str]:
    """Why cells would see other values when they are run again after the last one; empty if none would.

    A name that a cell takes from another cell must be bound in one cell only, and no cell may change another's object.
    """
    cells = [Cell(tree) for tree in trees]
    wrong = []
    for number, cell in enumerate(cells):
        wrong += [f"code cell {number} changes {name!r} of another cell" for name in sorted(cell.changes)]
        for name in sorted(cell.reads):
            ways = {(at, how) for at, other in enumerate(cells) for n, how in other.binds.items() if n == name}
            if len({how if how.startswith(("from ", "import ")) else (at, how) for at, how in ways}) > 1:
                places = sorted(at for at, _ in ways)
                wrong.append(f"code cell {number} reads {name!r}, which cells {places} bind")
            elif {at for at, _ in ways} == {number}:
                wrong.append(f"code cell {number} reads {name!r} before it binds it")
    return wrong


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        (["a = 1", "b = a + 1", "c = a + b"], None),
        (["a = 1", "b = a + 1", "a = 2"], "code cell 1 reads 'a', which cells [0, 2] bind"),
        (["a = 1", "a = a + 1"], "code cell 1 reads 'a', which cells [0, 1] bind"),
        (["a = 1", "a += 1"], "code cell 1 changes 'a'"),
        (["a = {}", "a['x'] = 1"], "code cell 1 changes 'a'"),
        (["a = {}; a['x'] = 1"], None),
        (["for i in range(3):\n    print(i)", "for i in range(2):\n    print(i)"], None),
        (["x = [i for i in range(3)]", "i = 4", "y = [i for i in x]"], None),
        (["import numpy as np\nn = np.pi", "import numpy as np\nm = np.e"], None),
        (["t = 1\nu = t", "t = 2\nv = t"], None),
        (["try:\n    x = 1\nexcept OSError as error:\n    print(error)", "y = x"], None),
    ],
)
def test_rebinding_is_seen(cells: list[str], complaint: str | None) -> None:
    found = cannot_run_again([ast.parse(cell) for cell in cells])
    assert (not found) if complaint is None else any(complaint in line for line in found)


# --- the rules -----------------------------------------------------------------------------------------------------


@every_lesson
def test_every_cell_can_be_run_again(notebook: NotebookSource) -> None:
    assert cannot_run_again(notebook.syntax()) == []


@every_lesson
def test_cells_are_short(notebook: NotebookSource) -> None:
    lines = [[line for line in source.splitlines() if line.strip()] for source in _code(notebook)]
    assert [line for own in lines for line in own if len(line) > LONGEST_LINE] == []
    assert max(map(len, lines)) <= LONGEST_CELL
    assert median(map(len, lines)) <= MEDIAN_CELL


@every_lesson
def test_the_text_is_as_long_as_a_lesson(notebook: NotebookSource) -> None:
    words = len(_prose(notebook).split())
    assert FEWEST_WORDS <= words <= MOST_WORDS, f"{words} words"


@every_lesson
def test_the_template_is_kept(notebook: NotebookSource) -> None:
    first, prose = notebook.cells[0].source, _prose(notebook)
    assert re.search(r"^\*Paper:", first, re.MULTILINE), "the paper's section"
    assert [line[:2] for line in first.splitlines() if re.match(r"\d\. ", line)] == ["1.", "2.", "3."], "three goals"
    assert re.search(r"\| profile \| minutes", first)
    assert 2 <= prose.count("**Predict.**") <= 8 and prose.count("**Notice.**") >= prose.count("**Predict.**")
    order = [prose.find(f"## {part}") for part in ("The paper beside ours", "Limits", "Exercises")]
    assert -1 not in order and order == sorted(order)
    assert notebook.number == CHAIN[-1].number or "**Next:**" in prose


@every_lesson
def test_few_tables_carry_the_story(notebook: NotebookSource) -> None:
    more = next((i for i, c in enumerate(notebook.cells) if MORE_TABLES in c.source), len(notebook.cells))
    tables = [found.result_id for found in notebook.registered() if found.kind == "table" and found.cell < more]
    assert len(tables) <= TABLES_IN_THE_STORY, tables


@every_lesson
def test_frames_and_axes_are_the_package_s_work(notebook: NotebookSource) -> None:
    built = [
        line
        for source in _code(notebook)
        for line in source.splitlines()
        if re.search(r"pd\.(DataFrame|concat)|plt\.subplots|\.groupby\(|\.set_xlabel\(", line)
    ]
    assert built == []


@pytest.mark.slow
@pytest.mark.parametrize("number", ["00", "03"])
def test_a_second_pass_in_the_same_kernel_works(number: str, runs: object) -> None:
    """All code cells, then all of them but the setup again: the second pass meets what the last cell left."""
    source = next(notebook for notebook in CHAIN if notebook.number == number)
    notebook = nbformat.read(source.path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].source = code[0].source.replace('"laptop"', '"smoke"')
    notebook.cells = code + [nbformat.v4.new_code_cell(cell.source) for cell in code[1:]]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(notebooks_dir())}}).execute()
