"""Clips from any folder of videos: shot cuts, 24 frames a second, scaled and cropped centrally.

    mobivid data check FOLDER

prints what would be used and what would be skipped, and why. Nothing is dropped without being named.
The VAE trains on such a folder through `folder_pool`, which keeps every shot on one side of the split.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.command import CommandParser, at_least_one, given_path, run_command
from mobivid_core.data.shots import find_shots, windows
from mobivid_core.data.video_io import FRAME_RATE, frames_to_clip, iterate_frames
from mobivid_core.errors import ParameterError, VideoError
from mobivid_core.files import Found, find_files
from mobivid_core.paths import user_path

#: Frames of one file kept while its cuts are found (100 s: 118 MB at 128x128); of a longer file, clips are read again.
KEPT_FRAMES = 2400
#: Clips of one file at most.
PER_FILE = 64
#: Shots, or files where there are several, that go to `test`: one in this many.
TEST_EVERY = 5


@dataclass(frozen=True)
class UsedFile:
    """A video that gave clips: name within the folder, frames read (at most 24 a second), shots and clips."""

    name: str
    frames: int
    shots: int
    clips: int


@dataclass(frozen=True)
class SkippedFile:
    """A file that gave no clip, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Clip:
    """Frames uint8 (T, H, W, 3), and the file and shot that they come from."""

    file: str
    shot: int
    pixels: np.ndarray


def printable(line: str) -> str:
    """A line for any terminal or notebook: a line break or a byte of another encoding in a file's name is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


@dataclass
class FolderReport:
    """What became of each file of a folder."""

    folder: Path  # the folder, or the shard
    used: list[UsedFile] = field(default_factory=list)  # files that gave clips
    # Files that gave none, and folders that could not be entered
    skipped: list[SkippedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else is worth knowing

    def passed_over(self, found: Found) -> None:
        """Name what was found below the folder and is no readable file."""
        self.skipped += [SkippedFile(name, reason) for name, reason in found.passed.items()]
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
        return "\n".join(map(printable, lines))


@dataclass(frozen=True)
class FolderPool:
    """Clips of a folder for training and measuring, small enough to keep whole."""

    train: Tensor  # (N, 3, T, H, W) uint8
    test: Tensor  # (M, 3, T, H, W) uint8, of shots that `train` has nothing of
    report: FolderReport  # what became of each file


def clips_from_folder(
    folder: Path | str, *, frames: int = 17, size: int | tuple[int, int] = 128, per_file: int = PER_FILE
) -> tuple[Tensor, FolderReport]:
    """Read every video under a folder into clips (N, 3, T, H, W) float32 in [-1, 1], and report each file.

    Each video is cut into shots; each shot into non-overlapping clips, its middle first, at most `per_file` spread over
    the shots. Files faster than 24 frames a second lose frames; slower ones keep their rate, so that their motion looks
    faster. What counts is a file's content, not its name. Subfolders and links are searched, in name order; names that
    begin with a dot are passed over. `size` is height and width in pixels, or one number for a square. VideoError where
    no file gave a clip; the message lists the reasons.
    """
    found, report = _read(user_path(folder), frames, size, per_file)
    return torch.stack([frames_to_clip(clip.pixels) for clip in found]), report


def folder_pool(
    folder: Path | str, *, frames: int = 17, size: int | tuple[int, int] = 128, limit: int = 2048
) -> FolderPool:
    """Read a folder, as `clips_from_folder`, for training a VAE and measuring it; no shot is in both halves.

    Where several files give clips, whole files go to `test` (files often hold one scene many times); a single file is
    split by shot. Every fifth is tested, and at least one. At most `limit` clips are kept, spread over the files; 2048
    of 17x128x128 take 1.7 GB. VideoError too where all clips are of one shot of one file: nothing would be left to
    measure on.
    """
    if limit < 2:
        raise ParameterError(f"limit must be at least 2, one clip to train on and one to measure, got {limit}")
    found, report = _read(user_path(folder), frames, size, PER_FILE)
    several = len({clip.file for clip in found}) > 1

    def group(clip: Clip) -> str | int:
        return clip.file if several else clip.shot

    groups = sorted({group(clip) for clip in found})
    if len(groups) < 2:
        raise VideoError(
            f"all clips of this folder come from one shot: with nothing apart from it, a measure would be of the "
            f"training clips. Add a video or a longer one. {report}"
        )
    tested = set(groups[TEST_EVERY // 2 :: TEST_EVERY]) or {groups[-1]}
    kept = [found[i] for i in np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)]
    halves: dict[bool, list[Tensor]] = {True: [], False: []}
    for clip in kept:
        halves[group(clip) in tested].append(torch.from_numpy(clip.pixels).permute(3, 0, 1, 2))
    if not halves[True] or not halves[False]:
        raise VideoError(f"{limit} clips are too few to keep some of both halves; raise the limit. {report}")
    return FolderPool(torch.stack(halves[False]), torch.stack(halves[True]), report)


def _read(folder: Path, frames: int, size: int | tuple[int, int], per_file: int) -> tuple[list[Clip], FolderReport]:
    sides = (size, size) if isinstance(size, int) else size
    if min(frames, per_file, *sides) < 1:
        raise ParameterError(f"frames, size and per_file must be at least 1, got {frames}, {size} and {per_file}")
    if not folder.is_dir():
        raise ParameterError(f"{folder} is not a folder; give one that holds videos")
    found, report, inside = [], FolderReport(folder), find_files(folder)
    report.passed_over(inside)
    for path in inside.files:
        name = path.relative_to(folder).as_posix()
        try:
            own, used = clips_of_file(path, name, frames, sides, per_file)
        except (VideoError, OSError) as error:
            told = isinstance(error, VideoError)
            reason = str(error).removeprefix(f"{path.name}: ") if told else f"unreadable ({error})"
            report.skipped.append(SkippedFile(name, reason))
        else:
            found += own
            report.used.append(used)
    if not found:
        raise VideoError(f"no clip of {frames} frames in this folder. {report}")
    return found, report


def clips_of_file(
    path: Path, name: str, frames: int, size: tuple[int, int], per_file: int
) -> tuple[list[Clip], UsedFile]:
    """Clips of one video, at most `per_file`, and what to report of it as `name`; a VideoError if there are none."""
    if not path.stat().st_size:
        raise VideoError("an empty file (0 bytes)")
    kept: list[np.ndarray] = []
    shots = find_shots(_keeping(iterate_frames(path, size=size, max_fps=FRAME_RATE), kept))
    queues = [[(start, shot) for start in windows(*shots[shot], frames)] for shot in range(len(shots))]
    rounds = [queue[rank] for rank in range(max(map(len, queues))) for queue in queues if rank < len(queue)]
    chosen = sorted(rounds[:per_file])
    if not chosen:
        longest = max(length for _, length in shots)
        raise VideoError(f"its longest shot has {longest} frames at {FRAME_RATE} a second, fewer than {frames}")
    total = sum(length for _, length in shots)
    source = kept if total <= KEPT_FRAMES else iterate_frames(path, size=size, max_fps=FRAME_RATE)
    cut = _cut(source, [start for start, _ in chosen], frames)
    clips = [Clip(name, shot, pixels) for (_, shot), pixels in zip(chosen, cut, strict=True)]
    return clips, UsedFile(name, total, len(shots), len(clips))


def _keeping(pictures: Iterator[np.ndarray], kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass frames on and keep them, until there are too many: then keep none, so that any length fits in memory."""
    for index, picture in enumerate(pictures):
        if index < KEPT_FRAMES:
            kept.append(picture)
        elif index == KEPT_FRAMES:
            kept.clear()
        yield picture


def _cut(pictures: Iterable[np.ndarray], starts: list[int], frames: int) -> Iterator[np.ndarray]:
    """Disjoint windows of a sequence of frames, in order, holding one window at a time."""
    pictures, place = iter(pictures), 0
    for start in starts:
        yield np.stack(list(islice(pictures, start - place, start - place + frames)))
        place = start + frames


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder from the command line; returns the exit status (2 where nothing can be used)."""
    parser = CommandParser("data check", __doc__)
    parser.add_argument("folder", type=given_path)
    parser.add_argument("--frames", type=at_least_one, default=17, help="frames of a clip (default 17)")
    parser.add_argument("--size", type=at_least_one, default=128, help="height and width in pixels (default 128)")
    text = f"clips of one file at most (default {PER_FILE})"
    parser.add_argument("--per-file", type=at_least_one, default=PER_FILE, help=text)
    return run_command(_check, parser, arguments)


def _check(options: argparse.Namespace) -> None:
    _, report = _read(options.folder, options.frames, options.size, options.per_file)
    print(report)
