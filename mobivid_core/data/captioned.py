"""Your own captioned videos: a folder with `captions.csv`, or webdataset shards.

`captions.csv` has the columns `file` (path below the folder) and `caption`; a file may have several rows, one a
wording. Shards are tar files whose samples hold a video (`mp4`, `webm`, ...) and a caption (`txt`, or `caption` in
`json`): a sample is what webdataset takes for one, neighbouring files whose names agree up to the first dot.
Nothing is dropped without being named.
"""

from __future__ import annotations

import json
import os
import posixpath
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobivid_core.data.caption_table import CAPTIONS, decode_text, read_captions
from mobivid_core.data.folder import FolderReport
from mobivid_core.errors import ParameterError
from mobivid_core.files import find_files

_SHARDS = (".tar", ".tar.gz", ".tgz")
#: Names that surely hold a video; in a sample without any of them, all but captions are tried.
_VIDEOS = frozenset("avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv".split())
_TEXTS = ("txt", "json")
#: name, path of the unpacked file, captions
Video = tuple[str, Path, tuple[str, ...]]
_APART = "its video and its caption do not lie side by side in the shard: pack it with tar --sort=name"


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
        return _shard_videos(shards, report)
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


def _shard_videos(shards: list[Path], report: FolderReport) -> Iterator[Video]:
    """Unpack the videos of tar files one by one; each is gone when the next is asked for."""
    try:
        import webdataset.tariterators as tars
    except ImportError as error:
        raise ParameterError(
            f"{shards[0]} is a webdataset shard: `pip install webdataset` to read it, or unpack it into a folder with "
            "captions.csv"
        ) from error
    with tempfile.TemporaryDirectory(prefix="mobivid-shards-") as folder:
        for shard in shards:
            yield from _videos_of(shard, tars, report, Path(folder))


def _videos_of(shard: Path, tars: object, report: FolderReport, folder: Path) -> Iterator[Video]:
    seen: set[tuple[str, str]] = set()
    halves: dict[str, str] = {}  # key -> why this part of a sample is no use, until the shard's end

    def named(member: str) -> tuple[str | None, str | None]:
        """Key and suffix as webdataset splits them; None for what belongs to no sample."""
        key, suffix = tars.base_plus_ext(member)
        if key is None:
            if not Path(member).name.startswith("."):
                report.skip(member, "has no suffix, so it belongs to no sample")
        elif (key, suffix.lower()) in seen:
            report.skip(member, "a second file of this name in the shard; the first counts")
            return None, None
        else:
            seen.add((key, suffix.lower()))
        return key, suffix

    def broken(error: Exception) -> bool:
        reason = str(error.args[0] if error.args else error).partition(" @ ")[0]
        if shard.name not in halves:  # the library tells of one fault several times
            halves[shard.name] = f"breaks off or is damaged ({reason}); what can be read of it is used"
        return True

    try:
        stream = shard.open("rb")
    except OSError as error:
        report.skip(shard.name, f"cannot be read ({error.strerror})")
        return
    with stream:
        files = tars.tar_file_expander([{"url": str(shard), "stream": stream}], handler=broken)
        for sample in tars.group_by_keys(files, keys=named, handler=broken):
            key = sample["__key__"]
            parts = list(_parts(sample))
            lost = [(suffix, reason) for suffix, _, _, reason in parts if reason]
            for suffix, content, captions, _ in (part for part in parts if not part[3]):
                path = folder / f"video.{suffix.rpartition('.')[2][:8] or 'bin'}"
                path.write_bytes(content)
                yield f"{key}.{suffix}", path, captions
                path.unlink()
            if len(lost) < len(parts):
                for suffix, reason in lost:
                    report.skip(f"{key}.{suffix}", reason)
            else:
                halves[key] = _APART if key in halves else lost[0][1]
    for key, reason in halves.items():
        report.skip(key, reason)


def _parts(sample: dict[str, bytes]) -> Iterator[tuple[str, bytes, tuple[str, ...], str]]:
    """`(suffix, content, captions, "")` of each video in a sample; the last place says why one is no use."""
    suffixes = [suffix for suffix in sample if not suffix.startswith("__")]
    texts = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in _TEXTS]
    others = [suffix for suffix in suffixes if suffix not in texts]
    videos = [suffix for suffix in others if suffix.rpartition(".")[2] in _VIDEOS] or others
    if not videos:
        yield "", b"", (), "no video in this sample"
    for video in videos:
        stem = video.rpartition(".")[0]
        same = [text for text in texts if text.rpartition(".")[0] == stem]  # a.v1.mp4 goes with a.v1.txt
        chosen = sorted(same or (texts if len(texts) == 1 else [t for t in texts if t in _TEXTS]), reverse=True)
        captions, reason = _captions(chosen[0], sample[chosen[0]]) if chosen else ((), "no caption")
        yield video, sample[video], captions, reason


def _captions(suffix: str, data: bytes) -> tuple[tuple[str, ...], str]:
    """Captions in a member of a sample, or why there is none."""
    try:
        text, _ = decode_text(data)
        value = json.loads(text) if suffix.endswith("json") else text
    except ParameterError as error:
        return (), f"its {suffix} cannot be read: {error}"
    except (ValueError, RecursionError) as error:
        return (), f"its {suffix} is not valid JSON ({error})"
    if suffix.endswith("json"):
        if not isinstance(value, dict) or "caption" not in value:
            got = f"the keys {', '.join(value) or 'none'}" if isinstance(value, dict) else f"a {type(value).__name__}"
            return (), f"no caption: its {suffix} needs an object with the key caption, got {got}"
        value = value["caption"]
    wordings = value if isinstance(value, list) else [value]
    if not all(isinstance(words, str) for words in wordings):
        return (), f"no caption: the caption in its {suffix} is {json.dumps(value)[:60]}, expected text"
    found = tuple(dict.fromkeys(words.strip() for words in wordings if words.strip()))
    if "\0" in "".join(found):
        return (), f"the caption in its {suffix} holds a NUL character"
    return found, "" if found else "its caption is empty"
