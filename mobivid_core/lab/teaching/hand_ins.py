"""Recognise handed-in notebooks: which exercise, which student, and what is damaged.

Only types, sources, ids and teaching tags of cells are kept: outputs and a hosted editor's metadata never matter. A
file that is no notebook any more is refused with the reason; a file under another name is reported, not dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from mobivid_core.errors import TeachingError
from mobivid_core.lab.runner.source import KERNEL
from mobivid_core.lab.teaching.masters import TAGS, Exercise, Master

#: Largest file that is read; a notebook full of figures has a few.
MAX_BYTES = 100_000_000
_NEW_CELL = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell, "heading": new_markdown_cell}
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7}|\|{7})(?:\s|$)", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    hand_ins: list[tuple[Path, Master]]  # files named after a master, in order of their paths
    stray: list[tuple[Path, str]]  # what looks like a hand-in but cannot be taken for one, and why
    hidden: int  # files passed over: checkpoints of an editor, a Mac's "._" files


def find_hand_ins(folder: Path, masters: Sequence[Master]) -> Found:
    """Hand-ins in a folder and its subfolders: notebooks named after a master, e.g. `ana/ex02_flow.ipynb`."""
    if not folder.is_dir():
        raise TeachingError(f"{folder} is no folder; give the one that holds the handed-in notebooks")
    hand_ins, stray, hidden = [], [], 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        named = _named_after(path, masters)
        notebook = path.suffix.casefold() == ".ipynb"
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            hidden += bool(named or notebook)
        elif named and notebook:
            hand_ins.append((path, named))
        elif named:
            stray.append((path, f"named like a hand-in of {named.name}, but it is no .ipynb file"))
        elif notebook:
            stray.append((path, _why_stray(path, masters)))
    if not hand_ins and not stray:
        raise TeachingError(
            f"no handed-in notebooks in {folder}: their names have to hold a master's, such as ex02_flow"
        )
    return Found(hand_ins, stray, hidden)


def read_hand_in(path: Path) -> NotebookNode:
    """A handed-in file of any version of the format without outputs; TeachingError says what it is instead."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise TeachingError(f"the file has {size / 1e6:,.0f} MB; clear its outputs and hand it in again")
        return _rebuilt(_as_json(_as_text(path.read_bytes())))
    except OSError as error:
        raise TeachingError(f"the file cannot be read: {error.strerror}") from error


def find_checks(notebook: NotebookNode, master: Master) -> list[int]:
    """Places of a hand-in's check cells, one an exercise; TeachingError where one is missing or no code any more.

    They are found by id; where an editor renewed the ids, by their source; else by their tag, if none is missing.
    """
    tagged = [i for i, cell in enumerate(notebook.cells) if "check" in cell.metadata.get("tags", [])]
    in_order = len(tagged) == len(master.exercises)
    places = []
    for number, exercise in enumerate(master.exercises):
        check = master.cells[exercise.check]
        by_id = [i for i, cell in enumerate(notebook.cells) if cell.id == check.id]
        by_source = [i for i, cell in enumerate(notebook.cells) if cell.source.strip() == check.source.strip()]
        candidates = [*by_id, *by_source, *(tagged[number : number + 1] if in_order else [])]
        if not candidates:
            raise TeachingError(_missing(exercise, notebook, master))
        place = candidates[0]
        if notebook.cells[place].cell_type != "code":
            raise TeachingError(f"the check cell of {exercise.title!r} is no code cell any more; turn it back into one")
        places.append(place)
    if len(set(places)) != len(places):
        raise TeachingError("two exercises share one check cell: hand out that notebook again")
    return places


def kin(notebook: NotebookNode, masters: Sequence[Master]) -> Master | None:
    """The master that a notebook has most cells of, by id or source; None if it has none."""
    ids, sources = {cell.id for cell in notebook.cells}, {cell.source.strip() for cell in notebook.cells}

    def shared(master: Master) -> int:
        own = [master.cells[i] for e in master.exercises for i in (e.task, e.check)]
        return sum(cell.id in ids or cell.source.strip() in sources for cell in own)

    best = max(masters, key=shared)
    return best if shared(best) else None


def _named_after(path: Path, masters: Sequence[Master]) -> Master | None:
    name = path.name.casefold()
    named = [master for master in masters if master.name.casefold() in name]
    return min(named, key=lambda master: name.find(master.name.casefold()), default=None)


def _why_stray(path: Path, masters: Sequence[Master]) -> str:
    try:
        master = kin(read_hand_in(path), masters)
    except TeachingError as error:
        return f"its name holds no master's, and {error}"
    if master is None:
        return "its name holds no master's, and so do its cells: not a hand-in of these exercises"
    return f"looks like a hand-in of {master.name} under another name; rename it, e.g. {master.name}.ipynb"


def _missing(exercise: Exercise, notebook: NotebookNode, master: Master) -> str:
    if not notebook.cells:
        return "the notebook has no cells"
    if kin(notebook, [master]) is None:
        return f"the notebook holds nothing of {master.name}: it is another notebook under that name"
    return f"the check cell of {exercise.title!r} is missing: hand out that notebook again"


def _as_text(data: bytes) -> str:
    if not data.strip():
        raise TeachingError("the file is empty")
    if data.startswith(b"PK\x03\x04"):
        raise TeachingError("the file is a ZIP archive, not a notebook; unpack it")
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise TeachingError("the file is no text, so no notebook") from error


def _as_json(text: str) -> dict:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        if conflict := _CONFLICT.search(text):
            line = text.count("\n", 0, conflict.start()) + 1
            why = f"the file holds marks of a merge conflict (line {line}); settle it and hand it in again"
        elif text.lstrip().startswith("<"):
            why = "the file is a web page, not a notebook; download it again"
        elif text.lstrip().startswith("{"):
            why = f"the file is cut off or damaged ({error})"
        else:
            why = f"the file is no notebook ({error})"
        raise TeachingError(why) from error
    if not isinstance(values, dict) or not isinstance(values.get("nbformat"), int):
        raise TeachingError("the file is JSON, but no notebook")
    return values


def _rebuilt(values: dict) -> NotebookNode:
    major = values["nbformat"]
    if major > nbformat.current_nbformat:
        raise TeachingError(f"the notebook's format {major} is newer than this program knows; save it in format 4")
    if major < 4:
        try:
            values = nbformat.convert(nbformat.from_dict(values), 4)
        except Exception as error:  # the converters of old formats check nothing: a damaged file raises anything
            raise TeachingError(f"the notebook's old format {major} cannot be converted ({error})") from error
    cells = values.get("cells")
    if not isinstance(cells, list):
        raise TeachingError("the notebook has no list of cells: it is damaged")
    used: set[str] = set()
    made = [_fresh(cell, number, used) for number, cell in enumerate(cells)]
    return new_notebook(cells=made, metadata={"kernelspec": KERNEL})


def _fresh(cell: object, number: int, used: set[str]) -> NotebookNode:
    """One cell without outputs; its id is kept unless an earlier cell has the same."""
    values = cell if isinstance(cell, dict) else {}
    kind, source = values.get("cell_type"), values.get("source", "")
    lines = source if isinstance(source, list) else [source]
    if not isinstance(kind, str) or kind not in _NEW_CELL or not all(isinstance(line, str) for line in lines):
        raise TeachingError(f"cell {number} of the notebook is damaged")
    metadata = values.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    kept = [tag for tag in (*TAGS, "answer") if isinstance(tags, list) and tag in tags]
    # a lone half of a surrogate pair is valid JSON, but no text that could be sent to a kernel
    text = "".join(lines).encode("utf-8", "replace").decode()
    new = _NEW_CELL[kind](text, metadata={"tags": kept} if kept else {})
    name = values.get("id")
    if isinstance(name, str) and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) and name not in used:
        new.id = name
    used.add(new.id)
    return new
