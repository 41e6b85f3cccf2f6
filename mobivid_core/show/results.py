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

from mobivid_core.errors import ParameterError
from mobivid_core.evidence import EVIDENCE
from mobivid_core.files import disk_errors, read_json, replacing, sha256, write_bytes, write_json
from mobivid_core.measure.intervals import Interval
from mobivid_core.paths import figures_dir, runs_dir
from mobivid_core.profiles import get_profile
from mobivid_core.show.cells import csv_text, number_text, rendered
from mobivid_core.show.headlines import HEADLINE_COLUMNS, read_headlines, write_headlines
from mobivid_core.show.outcome import FigureResult, TableResult

if TYPE_CHECKING:
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

        Args:
            result_id: Lower-case identifier, unique in the project; a literal.
            fig: The figure; or a result that brings all that follows, explained there.

        Raises:
            ParameterError: A bad id, an unknown evidence class or no finding.
            RunError: The files cannot be written.
        """
        import matplotlib.pyplot as plt
        from IPython.display import Image, display

        from mobivid_core.show.style import png_bytes

        result = fig if isinstance(fig, FigureResult) else FigureResult(fig, finding, evidence, paper_item, data)
        self._check(result_id, result.evidence, result.finding)
        if not self.profile.meaningful:
            result.fig.text(0.5, 0.5, f"{self.profile.name}: numbers are meaningless", ha="center", va="center",
                            rotation=20, fontsize=16, color="0.5", alpha=0.5, zorder=100)  # fmt: skip
        image = png_bytes(result.fig)
        plt.close(result.fig)
        files = [self._write(f"{result_id}.png", image)]
        if result.data is not None:
            files.append(self._write(f"{result_id}.csv", csv_text(result.data).encode()))
        display(Image(data=image, alt=result.finding))
        self._register("figure", result_id, result, files)

    def table(
        self, result_id: str, frame: pd.DataFrame | TableResult, *, finding: str = "", evidence: str = "",
        paper_item: str | None = None,
    ) -> None:  # fmt: skip
        """Show a table and write `<id>.csv`; an index shows only if it is named, blank (NaN, None) cells stay blank.

        Arguments and errors are those of `figure`; where the evidence of rows differs, give them an `evidence` column.
        """
        from IPython.display import display

        result = frame if isinstance(frame, TableResult) else TableResult(frame, finding, evidence, paper_item)
        self._check(result_id, result.evidence, result.finding)
        files = [self._write(f"{result_id}.csv", csv_text(result.frame).encode())]
        display(rendered(result.frame), raw=True)
        self._register("table", result_id, result, files)

    def media(
        self, result_id: str, clips: torch.Tensor, *, finding: str, evidence: str, titles: Sequence[str] | None = None,
        paper_item: str | None = None,
    ) -> None:  # fmt: skip
        """Show clips (B, 3, T, H, W), with a title each, as a player with a static strip below; see `figure`.

        Writes `<id>.mp4`, `.webp` (the first four clips) and `.jpg`.
        """
        import matplotlib.pyplot as plt
        import torch
        from IPython.display import Image, display

        from mobivid_core.show import media
        from mobivid_core.show.style import strip_bytes

        self._check(result_id, evidence, finding)
        if clips.ndim != 5 or clips.shape[1] != 3:
            raise ParameterError(f"media {result_id!r} needs clips of shape (B, 3, T, H, W), got {tuple(clips.shape)}")
        strip = media.frame_strip(clips, titles=titles)
        image = strip_bytes(strip)
        plt.close(strip)
        files = [self._write(f"{result_id}.jpg", image)]
        for suffix, save, shown in (("mp4", media.save_mp4, len(clips)), ("webp", media.save_webp, IMAGE_CLIPS)):
            path = self.folder / f"{result_id}.{suffix}"
            with replacing(path) as temporary:
                save(temporary, torch.cat(list(clips[:shown].detach().cpu()), dim=-1))  # side by side
            files.append(path)
        display(media.player(clips, titles=titles))
        display(Image(data=image, format="jpeg", alt=finding))
        self._register("media", result_id, FigureResult(strip, finding, evidence, paper_item), files)

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

    def _write(self, name: str, data: bytes) -> Path:
        write_bytes(self.folder / name, data)
        return self.folder / name

    def _register(self, kind: str, result_id: str, result: TableResult | FigureResult, files: Sequence[Path]) -> None:
        """Show the caption, and enter the result and its files in the manifest."""
        from IPython.display import Markdown, display

        word = "Clips" if kind == "media" else kind.title()
        beside = f", beside the paper's {result.paper_item}" if result.paper_item else ""
        stamp = "" if self.profile.meaningful else f" **({self.profile.name}: numbers are meaningless)**"
        display(Markdown(f"*{word} `{result_id}` ({result.evidence}{beside}).* {result.finding}{stamp}"))
        hashes = {file.name: sha256(file) for file in files}
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
        with self._locked():
            noted = read_json(path, {})
            noted[result_id] = {"run": self.run_id, "kind": kind, "content": hashes}
            write_json(path, noted)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two notebooks may run at once: their read-change-write of one file must not interleave."""
        from filelock import FileLock

        folder = runs_dir(self.profile.name)
        lock = FileLock(folder / ".figures.lock")
        with disk_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def registered_path(notebook: str, profile: str) -> Path:
    """Where it is noted which run wrote each result of `notebook`."""
    return runs_dir(profile) / "registered" / f"{notebook}.json"


def headlines(profile: str) -> pd.DataFrame:
    """Headline numbers recorded at `profile`, with typed columns; empty if there are none."""
    import pandas as pd

    path = figures_dir(get_profile(profile).name) / HEADLINES
    if not path.is_file():
        return pd.DataFrame(columns=list(HEADLINE_COLUMNS))
    # a file of an older version lacks a column that has been added since
    return pd.read_csv(path).reindex(columns=list(HEADLINE_COLUMNS))


def manifest(profile: str) -> dict[str, dict[str, Any]]:
    """Registered figures, tables and clips at `profile`, by id."""
    return read_json(figures_dir(get_profile(profile).name) / MANIFEST, {})
