"""Parameters given on the command line, checked against what each notebook declares.

Papermill itself only warns about an unknown name and goes on with the default: a mistyped parameter
would silently give the wrong experiment. Here it is an error.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobivid_core.errors import ParameterError, RunError
from mobivid_core.lab.runner.source import NotebookSource

#: The parameter that names a folder of the user's; its files are an input of the notebook.
FOLDER = "FOLDER"


def declared(notebook: NotebookSource) -> dict[str, Any]:
    """Parameters of a notebook and their default values.

    Raises:
        ParameterError: A default is not a literal.
        RunError: The notebook's metadata name no kernel.
    """
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
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def resolve(notebooks: Sequence[NotebookSource], profile: str, given: Sequence[tuple[str, str]]) -> list[dict]:
    """Parameters for each notebook: the profile, and what was given and the notebook declares.

    Args:
        notebooks: The notebooks that will run.
        profile: Name of the profile.
        given: Pairs of name and text from the command line.

    Returns:
        One dictionary a notebook.

    Raises:
        ParameterError: A name that no notebook declares, a value of another type than the default's, or
            PROFILE given as a parameter.
    """
    known = [declared(notebook) for notebook in notebooks]
    chosen: list[dict[str, Any]] = [{"PROFILE": profile} if "PROFILE" in names else {} for names in known]
    for name, text in given:
        if name == "PROFILE":
            raise ParameterError("give the profile with --profile, not with -p PROFILE")
        takers = [i for i, names in enumerate(known) if name in names]
        if not takers:
            raise ParameterError(f"unknown parameter {name!r}. Known are: {_listing(notebooks, known)}")
        for i in takers:
            chosen[i][name] = _typed(notebooks[i].name, name, text, known[i][name])
            if name == FOLDER and text:  # the notebook works in another folder than the command
                chosen[i][name] = str(Path(text).expanduser().resolve())
    return chosen


def _listing(notebooks: Sequence[NotebookSource], known: Sequence[dict[str, Any]]) -> str:
    parts = []
    for notebook, names in zip(notebooks, known, strict=True):
        parts.append(f"{notebook.name}: {', '.join(n for n in names if n != 'PROFILE') or 'none'}")
    return "; ".join(parts)


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
