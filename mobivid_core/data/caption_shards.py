"""Videos and captions from webdataset shards; faulty samples and shards are named, the rest is read.

A sample is what webdataset takes for one: neighbouring files whose names agree up to the first dot.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mobivid_core.data.caption_table import decode_text
from mobivid_core.errors import ParameterError

#: Names that surely hold a video; in a sample without any of them, all but captions are tried.
_VIDEOS = frozenset("avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv".split())
_TEXTS = ("txt", "json")
#: name, path of the unpacked file, captions
Video = tuple[str, Path, tuple[str, ...]]
_APART = "its video and its caption do not lie side by side in the shard: pack it with tar --sort=name"
Skip = Callable[[str, str], None]


def shard_videos(shards: list[Path], skip: Skip) -> Iterator[Video]:
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
            yield from _videos_of(shard, tars, skip, Path(folder))


def _videos_of(shard: Path, tars: object, skip: Skip, folder: Path) -> Iterator[Video]:
    seen: set[tuple[str, str]] = set()
    halves: dict[str, str] = {}  # key -> why this part of a sample is no use, until the shard's end

    def named(member: str) -> tuple[str | None, str | None]:
        """Key and suffix as webdataset splits them; None for what belongs to no sample."""
        key, suffix = tars.base_plus_ext(member)
        if key is None:
            if not Path(member).name.startswith("."):
                skip(member, "has no suffix, so it belongs to no sample")
        elif (key, suffix.lower()) in seen:
            skip(member, "a second file of this name in the shard; the first counts")
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
        skip(shard.name, f"cannot be read ({error.strerror})")
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
                    skip(f"{key}.{suffix}", reason)
            else:
                halves[key] = _APART if key in halves else lost[0][1]
    for key, reason in halves.items():
        skip(key, reason)


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
