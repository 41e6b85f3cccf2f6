from __future__ import annotations

import ast
from collections.abc import Callable

import pytest
from nbformat import NotebookNode

from mobivid_core.lab.teaching.verdict import Unsolved, Verdict


def run_cell(source: str, scope: dict) -> object:
    """Execute a cell as a notebook does: the value of its last expression is its output."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), scope) if last else None


@pytest.fixture
def run_notebook() -> Callable[[list[NotebookNode]], tuple[list[Verdict], list[str]]]:
    """Run a notebook's cells in this process; gives the checks' verdicts and the messages of unsolved gaps."""

    def run(cells: list[NotebookNode]) -> tuple[list[Verdict], list[str]]:
        scope: dict = {"__name__": "__main__", "display": lambda *_: None}
        verdicts, gaps = [], []
        for cell in cells:
            if cell.cell_type == "code":
                try:
                    shown = run_cell(cell.source, scope)
                except Unsolved as gap:
                    gaps.append(str(gap))
                    continue
                if "check" in cell.metadata.get("tags", []):
                    assert isinstance(shown, Verdict), "a check cell ends with its verdict"
                    verdicts.append(shown)
        return verdicts, gaps

    return run
