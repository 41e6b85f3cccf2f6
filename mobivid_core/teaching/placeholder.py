"""From a solution to a gap: names and signatures stay, what they are worth goes."""

from __future__ import annotations

import ast

GAP = "# Your code here: replace every `...`, then run the cell below."


def bound_names(source: str) -> list[str]:
    """Names that a cell binds at its top level, in order; imported ones are not counted."""
    found: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.With)):
            found += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return list(dict.fromkeys(found))


def used_names(source: str) -> set[str]:
    """Names that a cell reads."""
    return {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def placeholder(solution: str, check: str) -> str:
    """The cell that a student fills in.

    Args:
        solution: Source of the solution.
        check: Source of the self-check: only names that it reads are asked for.

    Returns:
        `name = ...` for each value, signature and docstring for each function.
    """
    lines, wanted = solution.splitlines(), used_names(check)
    functions = {n.name: n for n in ast.parse(solution).body if isinstance(n, ast.FunctionDef)}
    parts = [GAP]
    for name in bound_names(solution):
        if name not in wanted:
            continue
        if name not in functions:
            parts.append(f"{name} = ...")
            continue
        node = functions[name]
        first = node.body[0]
        keeps = ast.get_docstring(node) is not None
        last = first.end_lineno if keeps else first.lineno - 1
        header = "\n".join(lines[node.lineno - 1 : last])
        parts.append(f"\n\n{header}\n    ...")
    return "\n".join(parts)
