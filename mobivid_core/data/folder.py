"""Clips from any folder of videos: shot cuts, 24 frames a second, scaled and cropped centrally.

`mobivid data check FOLDER` prints what would be used and what would be skipped, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mobivid_core.command import CommandParser, at_least_one, given_path, run_command
from mobivid_core.data.shots import find_shots, rounds, windows
from mobivid_core.data.video_io import FRAME_RATE, frames_to_clip, iterate_frames
from mobivid_core.errors import ParameterError, VideoError
from mobivid_core.files import Found, find_files
from mobivid_core.paths import user_path

#: Frames of one file kept while its cuts are found (100 s: 118 MB at 128x128); a longer file is decoded twice.
KEPT_FRAMES = 2400
#: Clips of one file at most.
PER_FILE = 64
#: Shots, or files where there are several, that go to `test`: one in this many, and at least one.
TEST_EVERY = 5


class UsedFile(NamedTuple):
    """A video that gave clips: name within the folder, frames read (at most 24 a second), shots and clips."""

    name: str
    frames: int
    shots: int
    clips: int


class SkippedFile(NamedTuple):
    """A file that gave no clip, and why."""

    name: str
    reason: str


class Clip(NamedTuple):
    """The file and shot that a clip comes from, and its frames uint8 (T, H, W, 3)."""

    file: str
    shot: int
    pixels: np.ndarray


@dataclass
class FolderReport:
    """What became of each file of a folder."""

    folder: Path  # the folder, or the shard
    used: list[UsedFile] = field(default_factory=list)  # files that gave clips
    # Files that gave none, and folders that could not be entered
    skipped: list[SkippedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else is worth knowing

    def skip(self, name: str, reason: str) -> None:
        """Name a file that gave no clip."""
        self.skipped.append(SkippedFile(name, reason))

    def read(self, path: Path, name: str, frames: int, size: tuple[int, int], per_file: int) -> list[Clip]:
        """As `clips_of_file`; a file without clips is skipped, and none come back."""
        try:
            clips, used = clips_of_file(path, name, frames, size, per_file)
        except VideoError as error:
            self.skip(name, str(error).removeprefix(f"{path.name}: "))
        except OSError as error:
            self.skip(name, f"unreadable ({error})")
        else:
            self.used.append(used)
            return clips
        return []

    def passed_over(self, found: Found) -> None:
        """Name what was found below the folder and is no readable file."""
        for name, reason in found.passed.items():
            self.skip(name, reason)
        if found.hidden:
            some = ", ".join(found.hidden[:3]) + (" ..." if len(found.hidden) > 3 else "")
            self.notes.append(f"{len(found.hidden)} names that begin with a dot are passed over: {some}")

    def __str__(self) -> str:
        clips = sum(file.clips for file in self.used)
        lines = [f"{self.folder}: {clips} clips from {len(self.used)} files, {len(self.skipped)} skipped"]
        for x in self.used:
            lines.append(f"  used     {x.name}: {x.clips} clips from {x.shots} shots, {x.frames} frames")
        lines += [f"  skipped  {file.name}: {file.reason}" for file in self.skipped]
        lines += [f"  note     {note}" for note in self.notes]
        # for any terminal or notebook: a line break or a byte of another encoding in a file's name is escaped
        safe = ("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in lines)
        return "\n".join(safe)


@dataclass(frozen=True)
class FolderPool:
    """Clips of a folder for training and measuring, small enough to keep whole."""

    train: Tensor  # (N, 3, T, H, W) uint8
    test: Tensor  # (M, 3, T, H, W) uint8, of shots that `train` has nothing of
    report: FolderReport  # what became of each file


def clips_from_folder(
    folder: Path | str, *, frames: int = 17, size: int = 128, per_file: int = PER_FILE
) -> tuple[Tensor, FolderReport]:
    """Read every video under a folder into clips (N, 3, T, H, W) float32 in [-1, 1], and report each file.

    Each video is cut into shots; each shot into non-overlapping clips, its middle first, at most `per_file` spread over
    the shots. Files faster than 24 frames a second lose frames; slower ones keep their rate, so that their motion looks
    faster. VideoError where no file gave a clip; the message lists the reasons.
    """
    found, report = _read(user_path(folder), frames, size, per_file)
    return torch.stack([frames_to_clip(clip.pixels) for clip in found]), report


def folder_pool(folder: Path | str, *, frames: int = 17, size: int = 128, limit: int = 2048) -> FolderPool:
    """Read a folder, as `clips_from_folder`, for training a VAE and measuring it; no shot is in both halves.

    Where several files give clips, whole files go to `test` (files often hold one scene many times); a single file is
    split by shot. At most `limit` clips are kept, spread over the files; 2048 of 17x128x128 take 1.7 GB. VideoError
    where all clips are of one shot of one file: nothing would be left to measure on.
    """
    if limit < 2:
        raise ParameterError(f"limit must be at least 2, one clip to train on and one to measure, got {limit}")
    found, report = _read(user_path(folder), frames, size, PER_FILE)
    several = len({clip.file for clip in found}) > 1
    group = attrgetter("file" if several else "shot")
    groups = sorted(set(map(group, found)))
    if len(groups) < 2:
        raise VideoError(
            f"all clips of this folder come from one shot: with nothing apart from it, a measure would be of the "
            f"training clips. Add a video or a longer one. {report}"
        )
    tested = set(groups[TEST_EVERY // 2 :: TEST_EVERY]) or {groups[-1]}
    kept = [found[i] for i in np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)]
    halves = [[clip for clip in kept if (group(clip) in tested) == half] for half in (False, True)]
    if not all(halves):
        raise VideoError(f"{limit} clips are too few to keep some of both halves; raise the limit. {report}")
    train, test = (torch.stack([torch.from_numpy(c.pixels).permute(3, 0, 1, 2) for c in half]) for half in halves)
    return FolderPool(train, test, report)


def _read(folder: Path, frames: int, size: int, per_file: int) -> tuple[list[Clip], FolderReport]:
    if not folder.is_dir():
        raise ParameterError(f"{folder} is not a folder; give one that holds videos")
    found, report, inside = [], FolderReport(folder), find_files(folder)
    report.passed_over(inside)
    for path in inside.files:
        found += report.read(path, path.relative_to(folder).as_posix(), frames, (size, size), per_file)
    if not found:
        raise VideoError(f"no clip of {frames} frames in this folder. {report}")
    return found, report


def clips_of_file(
    path: Path, name: str, frames: int, size: tuple[int, int], per_file: int
) -> tuple[list[Clip], UsedFile]:
    """Clips of one video, at most `per_file`, and what to report of it as `name`; a VideoError if there are none."""
    if not path.stat().st_size:
        raise VideoError("an empty file (0 bytes)")
    frames_of = partial(iterate_frames, path, size=size, max_fps=FRAME_RATE)
    decoded = frames_of()
    kept = list(islice(decoded, KEPT_FRAMES))
    shots = find_shots(chain(kept, decoded))
    queues = [[(start, number) for start in windows(*shot, frames)] for number, shot in enumerate(shots)]
    chosen = sorted(list(chain.from_iterable(rounds(queues)))[:per_file])
    if not chosen:
        longest = max(length for _, length in shots)
        raise VideoError(f"its longest shot has {longest} frames at {FRAME_RATE} a second, fewer than {frames}")
    total = sum(length for _, length in shots)
    pictures, place, clips = iter(kept) if total <= KEPT_FRAMES else frames_of(), 0, []
    for start, shot in chosen:
        clips.append(Clip(name, shot, np.stack(list(islice(pictures, start - place, start - place + frames)))))
        place = start + frames
    return clips, UsedFile(name, total, len(shots), len(clips))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder from the command line; returns the exit status (2 where nothing can be used)."""
    parser = CommandParser("data check", __doc__)
    parser.add_argument("folder", type=given_path)
    parser.add_argument("--frames", type=at_least_one, default=17, help="frames of a clip (default 17)")
    parser.add_argument("--size", type=at_least_one, default=128, help="height and width in pixels (default 128)")
    text = f"clips of one file at most (default {PER_FILE})"
    parser.add_argument("--per-file", type=at_least_one, default=PER_FILE, help=text)
    return run_command(lambda o: print(_read(o.folder, o.frames, o.size, o.per_file)[1]), parser, arguments)
