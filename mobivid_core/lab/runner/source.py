"""Read a notebook's source: its code, its parameters, the results it registers."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mobivid_core.errors import RunError

REGISTERING = ("figure", "table", "media", "headline")
INJECTED_TAG = "injected-parameters"


@dataclass(frozen=True)
class Registered:
    """A result that a notebook's source registers: its id, its kind and the cell's index."""

    result_id: str
    kind: str
    cell: int


@dataclass(frozen=True)
class NotebookSource:
    """One notebook of the chain.

    Attributes:
        path: The file.
        cells: Its cells.
    """

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
        """Every result the source registers, in order.

        Raises:
            RunError: An id is not a literal, or is registered twice.
        """
        found: dict[str, Registered] = {}
        for index, cell in enumerate(self.cells):
            if cell.cell_type != "code":
                continue
            for node in ast.walk(self._parse(cell.source, index)):
                if not _registers(node):
                    continue
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
        """Syntax trees of the code cells.

        Raises:
            RunError: A cell is not valid Python.
        """
        return [self._parse(c.source, i) for i, c in enumerate(self.cells) if c.cell_type == "code"]

    def _parse(self, source: str, index: int) -> ast.Module:
        from IPython.core.inputtransformer2 import TransformerManager

        try:
            return ast.parse(TransformerManager().transform_cell(source))
        except SyntaxError as error:
            raise RunError(f"{self.name}, cell {index}, is not valid Python: {error}") from error


def _registers(node: ast.AST) -> bool:
    """True for `results.figure(...)`, `ctx.results.table(...)` and the like, not for `plt.figure(...)`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REGISTERING):
        return False
    owner = node.func.value
    return (isinstance(owner, ast.Name) and owner.id == "results") or (
        isinstance(owner, ast.Attribute) and owner.attr == "results"
    )


def cell_hash(source: str) -> str:
    """SHA-256 of a cell's source, ignoring trailing white space."""
    return hashlib.sha256(source.rstrip().encode()).hexdigest()


def read_notebook(path: Path) -> NotebookSource:
    """Read a notebook.

    Raises:
        RunError: The file is missing or not a notebook.
    """
    try:
        # The current format gives every cell an id; reading also validates.
        node = nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise RunError(f"there is no notebook {path}") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError) as error:
        raise RunError(f"{path} is not a readable notebook: {error}") from error
    return NotebookSource(path, tuple(node.cells))


def read_chain(folder: Path) -> list[NotebookSource]:
    """The numbered notebooks of `folder`, in order.

    Raises:
        RunError: There is none, one cannot be read, or two register the same result id.
    """
    paths = sorted(p for p in folder.glob("[0-9][0-9]_*.ipynb"))
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
