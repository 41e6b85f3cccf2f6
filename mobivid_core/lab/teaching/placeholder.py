"""Turn a solution into a gap: keep names and signatures, remove the values."""

from __future__ import annotations

import ast
import symtable

GAP = "# Your code here. Then run this cell, and the one below: it checks your answer."


def bound_names(source: str) -> list[str]:
    """Functions and variables that a cell's own statements bind, in order; imports and nested blocks do not count."""
    found: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return list(dict.fromkeys(found))


def used_names(source: str) -> set[str]:
    """Names that a cell reads from the notebook; variables of its own comprehensions and functions do not count."""
    tables, used = [symtable.symtable(source, "<cell>", "exec")], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return used


def placeholder(solution: str, check: str) -> str:
    """The cell that a student fills in.

    Args:
        solution: Source of the solution.
        check: Source of the self-check: only names that it reads are asked for.

    Returns:
        `name = ...` for each value, signature and docstring for each function; running it unsolved raises `Unsolved`,
        at the cell's last line for values and when it is called for functions.
    """
    wanted = used_names(check)
    functions = {n.name: n for n in ast.parse(solution).body if isinstance(n, ast.FunctionDef)}
    names = [name for name in bound_names(solution) if name in wanted]
    values = [name for name in names if name not in functions]
    needed = [*(["require"] if values else []), *(["unsolved"] if len(values) < len(names) else [])]
    parts = [f"from mobivid_core.lab.teaching.verdict import {', '.join(needed)}\n\n{GAP}"]
    parts += ["\n" + _gap(functions[name], solution.splitlines()) + "\n" for name in names if name in functions]
    parts += [f"{name} = ..." for name in values]
    if values:
        parts.append(
            f"require({', '.join(f'{name}={name}' for name in values)})  # stops here while an answer is missing"
        )
    return "\n".join(parts).rstrip()


def _gap(function: ast.FunctionDef, lines: list[str]) -> str:
    """Signature and docstring of a function over a body that raises."""
    first = function.body[0]
    last = first.end_lineno if ast.get_docstring(function) is not None else first.lineno - 1
    return "\n".join([*lines[function.lineno - 1 : last], f'    unsolved("{function.name}")'])
