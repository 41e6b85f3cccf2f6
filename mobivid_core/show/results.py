"""Register a notebook's results: figures, tables, clips and headline numbers.

Each gets an id, an evidence class and a one-sentence finding, is shown in the notebook, written to the profile's
figures folder and listed in `manifest.json` there. Ids are string literals: the runner finds them in the notebook's
source and fails the run unless each was written by that run.

The committed manifest holds content only (no times, no run ids), so that an unchanged result leaves it unchanged; which
run wrote what is kept in `runs/<profile>/registered/`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mobivid_core.errors import ParameterError
from mobivid_core.evidence import EVIDENCE
from mobivid_core.files import disk_errors, read_json, sha256, write_bytes, write_json
from mobivid_core.measure.intervals import Interval
from mobivid_core.paths import figures_dir, runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.headlines import HEADLINE_COLUMNS, number_text, read_headlines, write_headlines
from mobivid_core.show.outcome import FigureResult, TableResult
from mobivid_core.show.style import png_bytes, strip_bytes

if TYPE_CHECKING:  # the runner and its subcommands import this module: what only notebooks need is imported late
    import pandas as pd
    import torch
    from matplotlib.figure import Figure

MANIFEST = "manifest.json"
HEADLINES = "headlines.csv"
RUN_ID_VARIABLE = "MOBIVID_RUN_ID"
#: Clips in an animated image: more than this and it is too wide for a page.
IMAGE_CLIPS = 4
_ID = re.compile(r"[a-z0-9][a-z0-9_]*")


class Results:
    """Registers the results of the notebook with this stem of a file name, made at a profile."""

    def __init__(self, notebook: str, profile: str) -> None:
        self.notebook = notebook
        self.profile = get_profile(profile)
        self.folder = figures_dir(profile)
        self.run_id = os.environ.get(RUN_ID_VARIABLE, f"interactive-{os.getpid()}")

    def figure(
        self, result_id: str, fig: Figure | FigureResult, *, finding: str = "", evidence: str = "",
        paper_item: str | None = None, data: pd.DataFrame | None = None,
    ) -> None:  # fmt: skip
        """Show a figure and write `<id>.png`, and `<id>.csv` if its data is given; the figure is closed.

        `result_id` is a literal in lower case, unique in the project; a `FigureResult` brings all that follows. A bad
        id, an unknown evidence class or no finding is a `ParameterError`, a file that cannot be written a `RunError`.
        """
        from IPython.display import Image

        result = fig if isinstance(fig, FigureResult) else FigureResult(fig, finding, evidence, paper_item, data)
        self._check(result_id, result.evidence, result.finding)
        if not self.profile.meaningful:
            result.fig.text(0.5, 0.5, f"{self.profile.name}: numbers are meaningless", ha="center", va="center",
                            rotation=20, fontsize=16, color="0.5", alpha=0.5, zorder=100)  # fmt: skip
        files = {"png": png_bytes(result.fig)}
        if result.data is not None:
            files["csv"] = _csv(_with_named_index(result.data))
        self._register("figure", result_id, result, files, Image(data=files["png"], alt=result.finding))

    def table(
        self, result_id: str, frame: pd.DataFrame | TableResult, *, finding: str = "", evidence: str = "",
        paper_item: str | None = None,
    ) -> None:  # fmt: skip
        """Show a table and write `<id>.csv`; an index shows only if it is named, blank (NaN, None) cells stay blank.

        Arguments and errors are those of `figure`; where the evidence of rows differs, give them an `evidence` column.
        """
        result = frame if isinstance(frame, TableResult) else TableResult(frame, finding, evidence, paper_item)
        self._check(result_id, result.evidence, result.finding)
        shown = _with_named_index(result.frame)
        text = shown.map(cell_text)
        # HTML without pandas' random ids, so that outputs are stable
        html = text.to_html(index=False, escape=True, border=0, justify="left")
        rendered = {"text/html": html, "text/plain": text.to_string(index=False)}
        self._register("table", result_id, result, {"csv": _csv(shown)}, rendered)

    def media(
        self, result_id: str, clips: torch.Tensor, *, finding: str, evidence: str, titles: Sequence[str] | None = None,
        paper_item: str | None = None,
    ) -> None:  # fmt: skip
        """Show clips (B, 3, T, H, W) as a player above a strip; write `<id>.mp4`, `.webp` (four of them) and `.jpg`."""
        from IPython.display import Image

        from mobivid_core.show import media

        self._check(result_id, evidence, finding)
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ParameterError(f"media {result_id!r} needs clips of shape (B, 3, T, H, W), got {tuple(clips.shape)}")
        strip = media.frame_strip(clips, titles=titles)
        whole, first = (media.side_by_side(part) for part in (clips, clips[:IMAGE_CLIPS]))
        files = {"jpg": strip_bytes(strip), "mp4": media.mp4_bytes(whole, 18), "webp": media.webp_bytes(first)}
        shown = media.player(clips, titles=titles), Image(data=files["jpg"], format="jpeg", alt=finding)
        self._register("media", result_id, FigureResult(strip, finding, evidence, paper_item), files, *shown)

    def headline(
        self, result_id: str, value: float | Interval | None, unit: str = "", n: int | None = None,
        evidence: str = "measured",
    ) -> None:  # fmt: skip
        """Record a headline number, or interval, in `headlines.csv` in place of an earlier one; errors as `figure`.

        `n` is the number of samples behind it, None for the interval's own. A value of None says that it could not be
        had: an earlier run's goes. One that is not finite is a `ParameterError`.
        """
        self._check(result_id, evidence, "a headline has no finding")
        if value is None:
            self._replace_headline(result_id, None)
            print(f"headline {result_id}: not measured")
            return
        found = value if isinstance(value, Interval) else None
        number = found.value if found else float(value)
        if not math.isfinite(number):
            raise ParameterError(f"headline {result_id!r} is {number}: a headline must be a finite number")
        low, high = (found.low, found.high) if found and math.isfinite(found.high - found.low) else (None, None)
        n, over = (found.n if n is None else n, f"{found.kind}, {found.over}") if found else (n, "")
        cells = [*map(number_text, (number, low, high)), unit, "" if n is None else str(int(n)), over, evidence]
        row = dict(zip(HEADLINE_COLUMNS, [result_id, *cells, self.profile.name, self.notebook], strict=True))
        interval = f"  [{low:.4g}, {high:.4g}], {over}, n = {n}" if low is not None else ""
        self._replace_headline(result_id, row)
        stamp = "" if self.profile.meaningful else f"   ({self.profile.name}: meaningless)"
        print(f"headline {result_id} = {number:.4g} {unit}{interval}  ({evidence}){stamp}".replace("  (", " (", 1))

    def _replace_headline(self, result_id: str, row: dict[str, str] | None) -> None:
        """Write a headline's row in place of an earlier one; None leaves it out."""
        path, new = self.folder / HEADLINES, [] if row is None else [row]
        with self._locked():
            write_headlines(path, [r for r in read_headlines(path) if r["id"] != result_id] + new)
            self._note(result_id, "headline", {} if row is None else {result_id: "|".join(row.values())})

    def forget_others(self, ids: set[str]) -> list[str]:
        """Drop this notebook's results, with their files, that are not among `ids`; returns the ids that went."""
        with self._locked():
            manifest = read_json(self.folder / MANIFEST, {})
            rows = read_headlines(self.folder / HEADLINES)
            gone = [i for i, e in manifest.items() if e["notebook"] == self.notebook and i not in ids]
            gone_rows = [r["id"] for r in rows if r["notebook"] == self.notebook and r["id"] not in ids]
            for name in (name for i in gone for name in manifest.pop(i)["files"]):
                (self.folder / name).unlink(missing_ok=True)
            if gone:
                write_json(self.folder / MANIFEST, manifest)
            if gone_rows:
                write_headlines(self.folder / HEADLINES, [r for r in rows if r["id"] not in gone_rows])
        return sorted(gone + gone_rows)

    def _check(self, result_id: str, evidence: str, finding: str) -> None:
        if not isinstance(result_id, str) or not _ID.fullmatch(result_id):
            raise ParameterError(f"result id {result_id!r} must be lower-case letters, digits and underscores")
        if evidence not in EVIDENCE:
            raise ParameterError(f"evidence {evidence!r} of {result_id!r} must be one of {', '.join(EVIDENCE)}")
        if not finding.strip():
            raise ParameterError(f"{result_id!r} needs a finding: one sentence that says what it shows")

    def _register(
        self, kind: str, result_id: str, result: TableResult | FigureResult, files: dict[str, bytes], *shown: object
    ) -> None:
        """Write the files, {suffix: content}, show the result with its caption, and enter it in the manifest."""
        from IPython.display import Markdown, display

        if isinstance(result, FigureResult):
            import matplotlib.pyplot as plt

            plt.close(result.fig)
        hashes = {}
        for suffix, data in files.items():
            write_bytes(path := self.folder / f"{result_id}.{suffix}", data)
            hashes[path.name] = sha256(path)
        for output in shown:
            display(output, raw=isinstance(output, dict))
        word = "Clips" if kind == "media" else kind.title()
        beside = f", beside the paper's {result.paper_item}" if result.paper_item else ""
        stamp = "" if self.profile.meaningful else f" **({self.profile.name}: numbers are meaningless)**"
        display(Markdown(f"*{word} `{result_id}` ({result.evidence}{beside}).* {result.finding}{stamp}"))
        entry = {
            "id": result_id, "kind": kind, "notebook": self.notebook, "evidence": result.evidence,
            "finding": result.finding, "paper_item": result.paper_item, "profile": self.profile.name,
            "meaningful": self.profile.meaningful, "files": hashes,
        }  # fmt: skip
        with self._locked():
            manifest = read_json(self.folder / MANIFEST, {})
            # an earlier version may have written other formats
            for name in set(manifest.get(result_id, {}).get("files", {})) - set(hashes):
                (self.folder / name).unlink(missing_ok=True)
            manifest[result_id] = entry
            write_json(self.folder / MANIFEST, manifest)
            self._note(result_id, kind, hashes)

    def _note(self, result_id: str, kind: str, hashes: dict[str, str]) -> None:
        """Remember which run wrote this result; the runner reads it after the notebook has run."""
        path = registered_path(self.notebook, self.profile.name)
        noted = read_json(path, {})
        write_json(path, noted | {result_id: {"run": self.run_id, "kind": kind, "content": hashes}})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two notebooks may run at once: their read-change-write of one file must not interleave."""
        folder = runs_dir(self.profile.name)
        with disk_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            held = FileLock(folder / ".figures.lock").acquire()
        with held:
            yield


def cell_text(value: Any) -> str:
    """Four significant digits, thousands separated, blanks blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e6:
            text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
            return text.replace("-", "\N{MINUS SIGN}")
        return f"{value:.3g}"
    return str(value)


def _with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as columns, where rows have names that a reader should see."""
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def registered_path(notebook: str, profile: str) -> Path:
    """Where it is noted which run wrote each result of `notebook`."""
    return runs_dir(profile) / "registered" / f"{notebook}.json"


def headlines(profile: str) -> pd.DataFrame:
    """Headline numbers recorded at `profile`, with typed columns; empty if there are none."""
    import pandas as pd

    path = figures_dir(get_profile(profile).name) / HEADLINES
    # a file of an older version lacks a column that has been added since
    return (pd.read_csv(path) if path.is_file() else pd.DataFrame()).reindex(columns=list(HEADLINE_COLUMNS))


def manifest(profile: str) -> dict[str, dict[str, Any]]:
    """Registered figures, tables and clips at `profile`, by id."""
    return read_json(figures_dir(get_profile(profile).name) / MANIFEST, {})
