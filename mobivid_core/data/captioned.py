"""Your own captioned videos: a folder with `captions.csv`, or webdataset shards.

`captions.csv` has the columns `file` (path below the folder) and `caption`; a file may have several rows, one a
wording. Shards are tar files whose samples hold a video (`mp4`, `webm`, ...) and a caption (`txt`, or `caption` in
`json`); they are read by the library webdataset (`pip install webdataset`). Nothing is dropped without being named.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobivid_core.data.folder import VIDEO_SUFFIXES, FolderReport, SkippedFile, clips_of_file
from mobivid_core.errors import ParameterError, VideoError

CAPTIONS = "captions.csv"


@dataclass(frozen=True)
class CaptionedClips:
    """Clips of one video.

    Attributes:
        name: Of the video, within its source.
        clips: uint8 (N, T, H, W, 3).
        captions: Wordings of its caption, at least one; they belong to every clip.
    """

    name: str
    clips: np.ndarray
    captions: tuple[str, ...]


def captioned_clips(
    source: Path | str, report: FolderReport, *, frames: int = 17, size: int = 128, per_file: int = 8
) -> Iterator[CaptionedClips]:
    """Read captioned videos one by one.

    Args:
        source: A folder with `captions.csv`, or with `.tar` shards, or one shard.
        report: Is told what was used, and what was skipped and why.
        frames: Frames of a clip.
        size: Height and width of a clip in pixels: scaled to cover, cropped centrally.
        per_file: Clips taken from one video at most.

    Yields:
        The clips of each usable video, in name order (shards: in their own order).

    Raises:
        ParameterError: The source is neither, its captions lack a column, or webdataset is missing.
    """
    source = Path(source)
    if (source / CAPTIONS).is_file():
        videos = _folder_videos(source, report)
    elif shards := _shards(source):
        videos = _shard_videos(shards, report)
    else:
        raise ParameterError(
            f"{source} holds neither {CAPTIONS} (columns file, caption) nor .tar shards; give a folder that does"
        )
    for name, path, captions in videos:
        try:
            clips, used = clips_of_file(path, name, frames, (size, size), per_file)
        except VideoError as error:
            report.skipped.append(SkippedFile(name, str(error).removeprefix(f"{path.name}: ")))
        else:
            report.used.append(used)
            yield CaptionedClips(name, np.stack(clips), captions)


def _folder_videos(folder: Path, report: FolderReport) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    captions = _read_captions(folder / CAPTIONS)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        name = path.relative_to(folder).as_posix()
        if name not in captions:
            report.skipped.append(SkippedFile(name, f"no row in {CAPTIONS}"))
    for name, wordings in sorted(captions.items()):
        if not (folder / name).is_file():
            report.skipped.append(SkippedFile(name, f"named in {CAPTIONS}, but there is no such file"))
        elif not wordings:
            report.skipped.append(SkippedFile(name, "its caption is empty"))
        else:
            yield name, folder / name, wordings


def _read_captions(file: Path) -> dict[str, tuple[str, ...]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:  # spreadsheets write a byte-order mark
        reader = csv.DictReader(lines)
        if not {"file", "caption"} <= set(reader.fieldnames or ()):
            raise ParameterError(f"{file} needs the columns file and caption, got {', '.join(reader.fieldnames or ())}")
        found: dict[str, tuple[str, ...]] = {}
        for row in reader:
            name, words = (row["file"] or "").strip(), (row["caption"] or "").strip()
            found[name] = found.get(name, ()) + ((words,) if words else ())
    return found


def _shards(source: Path) -> list[str]:
    if source.is_dir():
        return sorted(str(path) for path in source.glob("*.tar"))
    return [str(source)] if source.suffix == ".tar" and source.is_file() else []


def _shard_videos(shards: list[str], report: FolderReport) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    try:
        import webdataset
    except ImportError as error:
        raise ParameterError(
            f"{shards[0]} is a webdataset shard: `pip install webdataset` to read it, or unpack it into a folder with "
            f"{CAPTIONS}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="mobivid-shards-") as folder:
        for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
            name = sample["__key__"]
            kind = next((key for key in sample if f".{key}" in VIDEO_SUFFIXES), None)
            words = _caption_of(sample)
            if kind is None or not words:
                report.skipped.append(SkippedFile(name, "no video in this sample" if kind is None else "no caption"))
                continue
            path = Path(folder) / f"{name.replace('/', '_')}.{kind}"
            path.write_bytes(sample[kind])
            yield f"{name}.{kind}", path, (words,)
            path.unlink()


def _caption_of(sample: dict[str, bytes]) -> str:
    if "txt" in sample:
        return sample["txt"].decode("utf-8").strip()
    return str(json.loads(sample["json"]).get("caption", "")).strip() if "json" in sample else ""
