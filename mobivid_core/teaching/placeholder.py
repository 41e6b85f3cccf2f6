"""From a solution to a gap: names and signatures stay, what they are worth goes."""

from __future__ import annotations

import ast
import symtable

GAP = "# Your code here: replace every `...`, then run the cell below."


def bound_names(source: str) -> list[str]:
    """Names that a cell binds for later cells, in the order of their lines; imported ones are not counted."""
    top = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() and not s.is_imported()}
    where: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        name = node.id if isinstance(node, ast.Name) else node.name if isinstance(node, ast.FunctionDef) else None
        if name in bound:
            where[name] = min(node.lineno, where.get(name, node.lineno))
    return sorted(where, key=lambda name: (where[name], name))


def used_names(source: str) -> set[str]:
    """Names that a cell reads from the notebook; those of its own comprehensions and functions are not counted."""
    tables, used = [symtable.symtable(source, "cell", "exec")], set()
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
