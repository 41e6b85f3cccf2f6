"""A notebook's source: its code, the results it registers, and its parameters, against which given ones are checked.

Papermill itself only warns about an unknown name and goes on with the default: a mistyped parameter would silently give
the wrong experiment. Here it is an error.
"""

from __future__ import annotations

import ast
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from mobivid_core.errors import ParameterError, RunError

REGISTERING = ("figure", "table", "media", "headline")
INJECTED_TAG = "injected-parameters"
#: What a notebook says of its kernel.
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
#: The parameter that names a folder of the user's; its files are an input of the notebook.
FOLDER = "FOLDER"


@dataclass(frozen=True)
class Registered:
    """A result that a notebook's source registers, and the index of the cell."""

    result_id: str
    kind: str
    cell: int


@dataclass(frozen=True)
class NotebookSource:
    """One notebook of the chain."""

    path: Path
    cells: tuple[NotebookNode, ...]

    @property
    def name(self) -> str:
        """The file's stem, e.g. "03_sensitivity_analysis"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The stem's prefix, e.g. "03"."""
        return self.name.split("_")[0]

    def code(self) -> list[str]:
        """Sources of the code cells, without trailing white space."""
        return [cell.source.rstrip() for cell in self.cells if cell.cell_type == "code"]

    def registered(self) -> list[Registered]:
        """Every result the source registers, in order; RunError where an id is no literal, or there twice."""
        found: dict[str, Registered] = {}
        for index, tree in self._trees():
            for node in filter(_registers, ast.walk(tree)):
                first = node.args[0] if node.args else None
                if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                    raise RunError(
                        f"{self.name}, cell {index}: results.{node.func.attr}(...) needs its id as a literal first "
                        f"argument, got {ast.unparse(node)[:80]!r}"
                    )
                if first.value in found:
                    raise RunError(f"{self.name}, cell {index}: the result id {first.value!r} is registered twice")
                found[first.value] = Registered(first.value, node.func.attr, index)
        return list(found.values())

    def syntax(self) -> list[ast.Module]:
        """Syntax trees of the code cells; RunError where one is not valid Python."""
        return [tree for _, tree in self._trees()]

    def _trees(self) -> Iterator[tuple[int, ast.Module]]:
        """Index and syntax tree of each code cell, magics transformed."""
        from IPython.core.inputtransformer2 import TransformerManager

        for index, cell in enumerate(self.cells):
            if cell.cell_type == "code":
                try:
                    yield index, ast.parse(TransformerManager().transform_cell(cell.source))
                except SyntaxError as error:
                    raise RunError(f"{self.name}, cell {index}, is not valid Python: {error}") from error


def _registers(node: ast.AST) -> bool:
    """True for `results.figure(...)`, `ctx.results.table(...)` and the like, not for `plt.figure(...)`."""
    method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REGISTERING
    return method and ast.unparse(node.func.value).split(".")[-1] == "results"


def cell_hash(source: str) -> str:
    """SHA-256 of a cell's source, ignoring trailing white space."""
    return hashlib.sha256(source.rstrip().encode()).hexdigest()


def read_notebook(path: Path) -> NotebookSource:
    """Read a notebook; RunError where the file is none."""
    try:
        node = nbformat.read(path, as_version=4)  # validates it too
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError) as error:
        raise RunError(f"{path} is not a readable notebook: {error}") from error
    return NotebookSource(path, tuple(node.cells))


def read_chain(folder: Path) -> list[NotebookSource]:
    """The numbered notebooks of `folder`; RunError where there is none, or two register the same result id."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise RunError(f"no numbered notebooks (such as 01_name.ipynb) in {folder}")
    chain = [read_notebook(path) for path in paths]
    owners: dict[str, str] = {}
    for notebook in chain:
        for result in notebook.registered():
            owner = owners.setdefault(result.result_id, notebook.name)
            if owner != notebook.name:
                raise RunError(f"{owner} and {notebook.name} both register {result.result_id!r}; rename one of them")
    return chain


def declared(notebook: NotebookSource) -> dict[str, Any]:
    """Parameters of a notebook and their default values; ParameterError where one is not a literal."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns where no cell is tagged
    try:
        inspected = papermill.inspect_notebook(str(notebook.path))
    except ValueError as error:
        raise RunError(f"{notebook.name} names no kernel; its metadata need a kernelspec called python3") from error
    defaults = {}
    for name, described in inspected.items():
        try:
            defaults[name] = ast.literal_eval(described["default"])
        except (ValueError, SyntaxError) as error:
            raise ParameterError(
                f"{notebook.name}: the parameter {name} = {described['default']} is not a literal, so it would not "
                "follow a value passed for another parameter"
            ) from error
    return defaults


def own_folder(notebook: NotebookSource, given: dict[str, Any]) -> Path | None:
    """The user's folder that a notebook reads: as given, or as its source says (then beside the notebook)."""
    named = (declared(notebook) | given).get(FOLDER)
    return notebook.path.parent / named if named else None


def parse_value(text: str) -> Any:
    """A command-line value as a Python literal where it is one, else as text."""
    word = text.capitalize()
    try:
        return ast.literal_eval(word if word in ("True", "False", "None") else text)
    except (ValueError, SyntaxError):
        return text


def resolve(notebooks: Sequence[NotebookSource], profile: str, given: Sequence[tuple[str, str]]) -> list[dict]:
    """Parameters for each notebook: the profile, and what was `given` (name, text) and the notebook declares.

    ParameterError tells of a name that no notebook declares, a value of another type, or PROFILE given as a parameter.
    """
    known = [declared(notebook) for notebook in notebooks]
    chosen: list[dict[str, Any]] = [{"PROFILE": profile} if "PROFILE" in names else {} for names in known]
    for name, text in given:
        if name == "PROFILE":
            raise ParameterError("give the profile with --profile, not with -p PROFILE")
        takers = [i for i, names in enumerate(known) if name in names]
        if not takers:
            lists = [", ".join(n for n in names if n != "PROFILE") or "none" for names in known]
            parts = [f"{notebook.name}: {listed}" for notebook, listed in zip(notebooks, lists, strict=True)]
            raise ParameterError(f"unknown parameter {name!r}. Known are: {'; '.join(parts)}")
        for i in takers:
            chosen[i][name] = _typed(notebooks[i].name, name, text, known[i][name])
            if name == FOLDER and text:  # the notebook works in another folder than the command
                chosen[i][name] = str(Path(text).expanduser().resolve())
    return chosen


def _typed(notebook: str, name: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text  # text such as "007" must not turn into a number
    value = parse_value(text)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        raise ParameterError(
            f"{notebook}: the parameter {name} is of type {type(default).__name__} (default {default!r}), got {text!r}"
        )
    return value
