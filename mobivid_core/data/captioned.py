"""Your own captioned videos: a folder with `captions.csv`, or webdataset shards.

`captions.csv` has the columns `file` (path below the folder) and `caption`; a file may have several rows, one a
wording. Shards are tar files whose samples hold a video (`mp4`, `webm`, ...) and a caption (`txt`, or `caption` in
`json`); they are read by the library webdataset (`pip install webdataset`). Nothing is dropped without being named.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobivid_core.data.caption_shards import Video, shard_videos
from mobivid_core.data.caption_table import CAPTIONS, read_captions
from mobivid_core.data.folder import FolderReport
from mobivid_core.errors import ParameterError
from mobivid_core.files import find_files

_SHARDS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class CaptionedClips:
    """Clips of one video."""

    name: str  # of the video, within its source
    clips: np.ndarray  # uint8 (N, T, H, W, 3)
    captions: tuple[str, ...]  # wordings of its caption, at least one; they belong to every clip


def captioned_clips(
    source: Path | str, report: FolderReport, *, frames: int = 17, size: int = 128, per_file: int = 8
) -> Iterator[CaptionedClips]:
    """Clips of each usable video: of a folder with `captions.csv` or `.tar` shards, or of one shard.

    Clips are `size` pixels square, at most `per_file` of a video. `report` is told what was used or skipped, and why.
    ParameterError where the source is neither, its captions lack a column, or webdataset is missing.
    """
    for name, path, captions in captioned_videos(source, report):
        if clips := report.read(path, name, frames, (size, size), per_file):
            yield CaptionedClips(name, np.stack([clip.pixels for clip in clips]), captions)


def captioned_videos(source: Path | str, report: FolderReport) -> Iterator[Video]:
    """Name, path and captions of each video, undecoded; a path out of a shard is gone when the next is asked for."""
    source = Path(source)
    if not source.exists():
        raise ParameterError(f"{source}: no such folder; give one that holds {CAPTIONS} or .tar shards")
    if (source / CAPTIONS).is_file():
        return _folder_videos(source, report)
    if shards := _shards(source, report):
        return shard_videos(shards, report.skip)
    raise ParameterError(
        f"{source} holds neither {CAPTIONS} (columns file, caption) nor .tar shards; give a folder that does"
    )


def _folder_videos(folder: Path, report: FolderReport) -> Iterator[Video]:
    """Videos and their captions; names in the table may be written in other ways than the files' own."""
    table, inside = read_captions(folder / CAPTIONS), find_files(folder)
    report.passed_over(inside)
    if table.encoding != "utf-8":
        report.notes.append(f"{CAPTIONS} is not UTF-8; read as {table.encoding}: check accents, or save it as UTF-8")
    own = {path.relative_to(folder).as_posix(): path for path in inside.files}
    alike = {_plain(name): name for name in own} | {name: name for name in own}
    captions: dict[str, list[str]] = defaultdict(list)
    for name, words in table.wordings:
        captions[_found(name, alike)].append(words)
    named = {CAPTIONS, *captions}
    for name, reason in table.faulty:
        report.skip(_found(name, alike), reason)
        named.add(_found(name, alike))
    for name in own:
        if name not in named:
            report.skip(name, f"no row in {CAPTIONS}")
    for name, rows in sorted(captions.items()):
        wordings = tuple(words for words in dict.fromkeys(rows) if words)
        path = own.get(name, folder / name)
        if not os.path.isfile(path):  # unlike Path's, false for a name that no disk could hold
            report.skip(name, f"named in {CAPTIONS}, but there is no such file")
        elif not wordings:
            report.skip(name, "its caption is empty")
        else:
            yield name, path, wordings


def _found(name: str, alike: dict[str, str]) -> str:
    """The file's own name for a name in the table: exactly, or with ./, another Unicode form or backslashes."""
    ways = (name, _plain(name), _plain(name.replace("\\", "/")))
    return next((alike[way] for way in ways if way in alike), name)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def _shards(source: Path, report: FolderReport) -> list[Path]:
    if not source.is_dir():
        return [source] if source.is_file() and source.name.lower().endswith(_SHARDS) else []
    inside = find_files(source)
    shards = [path for path in inside.files if path.name.lower().endswith(_SHARDS)]
    if shards:
        report.passed_over(inside)
        for path in inside.files:
            if path not in shards:
                report.skip(path.relative_to(source).as_posix(), f"not a shard, and there is no {CAPTIONS}")
    return shards
