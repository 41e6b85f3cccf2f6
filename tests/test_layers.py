"""Imports point one way: a folder may use those before it in this order, never those after it."""

import ast
from pathlib import Path

import mobivid_core

PACKAGE = Path(mobivid_core.__file__).parent
#: Each layer's folders, or its modules at the top; what stands nowhere else is the first layer.
LAYERS = (
    *("(top)", "flow", "models", "profiles", "data", "measure", "train", "pipeline"),
    *("sensitivity", "prune", "distill", "phone", "coreml", "ltx", "show", "studies", "lab"),
)
PLACE = {name: place for place, name in enumerate(LAYERS)} | {"artifacts": LAYERS.index("profiles")}


def imports(path: Path) -> set[str]:
    """First part below the package of all that a module imports from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            inner = node.module.split(".")[1:]
            found |= {inner[0]} if inner else {name.name for name in node.names}
    return found


def test_imports_point_one_way():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(LAYERS) - {"(top)", "profiles"}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__main__",):
            continue  # the command line names all of them
        place = PLACE.get(parts[0], 0)
        wrong += [f"{'.'.join(parts)} imports {name}" for name in imports(path) if PLACE.get(name, 0) > place]
    assert not wrong
