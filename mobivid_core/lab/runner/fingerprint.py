"""Hashes of everything that a notebook's results depend on; unchanged hashes mean no rerun.

A notebook depends on its code cells (not its prose), its parameters, the package modules it imports (transitively,
imports inside functions included) with the tables and scripts beside them, the data and artefacts it reads, the files
of a folder given as the parameter FOLDER, and the versions of the libraries that compute.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, version
from modulefinder import ModuleFinder
from pathlib import Path

from mobivid_core.errors import RunError
from mobivid_core.files import find_files, sha256, tree_hashes

COMPUTING = ("torch", "numpy", "diffusers", "coremltools")
#: Entry of the shipped data -> modules through which it is read; without such an import it does not count.
READ_THROUGH = {
    "prepare.py": (),
    "paper": ("published",),
    "benchmarks": ("studies.records",),
    "checkpoints/student": ("distill.student", "pipeline.pipeline"),
    "checkpoints/distilled": ("distill.student", "pipeline.pipeline"),
}
#: Endings of files in the package that no result depends on, or that count as modules.
NOT_READ = (".py", ".pyc", ".md")
#: Importing this one means that it reads what other notebooks registered.
READS_RESULTS = "lab.scorecard"


def digest(value: object) -> str:
    """SHA-256 of a JSON-serialisable value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def module_files(trees: Iterable[ast.Module], package: Path) -> dict[str, Path]:
    """Files of a package's folder that the code imports, directly or not.

    Keys are dotted module names without the package's own; its `__init__` is "".
    """
    finder = ModuleFinder([str(package.parent)])  # there alone: libraries are not looked into
    main = finder.add_module("__main__")
    try:
        for tree in trees:
            finder.scan_code(compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), main)
    except SyntaxError as error:
        raise RunError(f"{error.filename} is not valid Python: {error}") from error
    own = {n: m.__file__ for n, m in finder.modules.items() if n.split(".")[0] == package.name and m.__file__}
    return {name.removeprefix(package.name).removeprefix("."): Path(file) for name, file in sorted(own.items())}


def files_beside(modules: Iterable[Path]) -> list[Path]:
    """Tables and scripts in the folders of modules, which they may read."""
    folders = {module.parent for module in modules}
    return sorted(f for folder in folders for f in folder.iterdir() if f.is_file() and f.suffix not in NOT_READ)


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of libraries; "missing" where one is not installed."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def data_hashes(data: Path, modules: Collection[str]) -> dict[str, str]:
    """Hashes of the shipped data, one an entry; those of `READ_THROUGH` only where an imported module reads them."""
    divided = {Path(name).parts[0] for name in READ_THROUGH if "/" in name}
    entries = []
    for entry in data.iterdir() if data.is_dir() else ():
        entries += entry.iterdir() if entry.is_dir() and entry.name in divided else [entry]
    hashes = {}
    for entry in sorted(entry for entry in entries if not entry.name.startswith(".")):
        name = entry.relative_to(data).as_posix()
        if name not in READ_THROUGH or any(reader in modules for reader in READ_THROUGH[name]):
            hashes[name] = digest(tree_hashes(entry)) if entry.is_dir() else sha256(entry)
    return hashes


def folder_content(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder somebody else made, and why others are not read."""
    if not folder.is_dir():
        return {}
    inside = find_files(folder)
    content = dict(inside.passed)
    for path in inside.files:
        try:
            content[str(path)] = sha256(path)
        except OSError as error:
            content[str(path)] = str(error)
    return content


def changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Parts that differ, named."""
    return sorted(part for part in old.keys() | new.keys() if old.get(part) != new.get(part))
