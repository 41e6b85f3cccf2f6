"""Result of a self-check: right, not yet (with the reason), or open. A check is a pure function that returns one.

The gaps in the student's edition raise `Unsolved`, which a notebook shows as one line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import Any, Literal, NoReturn, ParamSpec

P = ParamSpec("P")
#: Kind of notebook output that carries a verdict for `grade`.
VERDICT_MIME = "application/vnd.mobivid.verdict+json"
_LABELS = {"right": "Right", "wrong": "Not yet", "open": "Open"}
_COLOURS = {"right": "#1b7837", "wrong": "#b35806", "open": "#666666"}
#: What reading an answer of the wrong kind raises.
_UNREADABLE = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class Verdict:
    """Result of one self-check, e.g. of "vae.tokens".

    The status is "open" while the gap is not filled. The message says what is right or wrong, never the answer.
    """

    check: str
    status: Literal["right", "wrong", "open"]
    message: str

    @property
    def ok(self) -> bool:
        """True for a right answer."""
        return self.status == "right"

    def __str__(self) -> str:
        return f"{_LABELS[self.status]}: {self.message}"

    __repr__ = __str__

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        style = f"border-left:4px solid {_COLOURS[self.status]};padding:4px 10px"
        return {
            "text/plain": str(self),
            "text/html": f'<div style="{style}"><b>{_LABELS[self.status]}</b>: {escape(self.message)}</div>',
            VERDICT_MIME: {"check": self.check, "status": self.status},
        }


class Wrong(Exception):
    """Raised inside a check: the answer is wrong, and why, without the answer."""


class Unsolved(Exception):
    """The gap is not filled yet."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the message alone."""
        return [f"Open: {self}"]


def unsolved(name: str) -> NoReturn:
    """Body of a function that a student has still to write."""
    raise Unsolved(f"`{name}` is not written yet: put your code in place of `unsolved(...)`.")


def require(**answers: object) -> None:
    """Last line of a cell with values to fill in: raises `Unsolved` while one is still `...`."""
    gaps = [f"`{name}`" for name, value in answers.items() if value is ...]
    if gaps:
        raise Unsolved(f"put your answer in place of `...` for {', '.join(gaps)} in this cell, then run it again.")


def run(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a student's function: `Unsolved` where it returns nothing, `Wrong` where it is none or raises an error."""
    name = getattr(function, "__name__", "it")
    if not callable(function):
        raise Wrong(f"the exercise asks for a function, and this is {type(function).__name__}")
    try:
        result = function(*arguments)
    except Unsolved:
        raise
    except Exception as error:  # whatever a student's code raises belongs into the verdict, not into a traceback
        raise Wrong(f"`{name}` raised {type(error).__name__}: {error}") from error
    if result is None or result is ...:
        raise Unsolved(f"`{name}` returns nothing: end it with `return`.")
    return result


def compare(found: float, right: float, slips: Mapping[float, str], otherwise: str, rel_tol: float = 1e-6) -> None:
    """`Wrong` unless `found` is right: with the reason of the usual slip that it is equal to, else `otherwise`."""
    if not math.isclose(found, right, rel_tol=rel_tol):
        raise Wrong(next((why for slip, why in slips.items() if math.isclose(found, slip, rel_tol=rel_tol)), otherwise))


def checked(check: Callable[P, str]) -> Callable[P, Verdict]:
    """Make a check of a function that returns praise or raises `Wrong`.

    An argument that is still the gap's `...` gives "open"; one that cannot be read gives "wrong", not a traceback.
    """
    name = f"{check.__module__.rsplit('.', 1)[-1]}.{check.__name__}"

    @wraps(check)
    def judged(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        given = inspect.signature(check).bind(*args, **kwargs).arguments
        gaps = [f"`{key}`" for key, value in given.items() if value is None or value is ...]
        if gaps:
            return Verdict(name, "open", f"not solved yet: {', '.join(gaps)} still to be filled in the cell above.")
        try:
            return Verdict(name, "right", check(*args, **kwargs))
        except Unsolved as error:
            return Verdict(name, "open", f"not solved yet: {error}")
        except Wrong as error:
            return Verdict(name, "wrong", str(error))
        except _UNREADABLE as error:
            read = f"the answer could not be read ({type(error).__name__}: {error})"
            return Verdict(name, "wrong", f"{read}; is it of the kind that is asked for?")

    return judged
