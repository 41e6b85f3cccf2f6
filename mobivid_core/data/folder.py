"""Clips from any folder of videos: shot cuts, 24 frames a second, scaled and cropped centrally.

    python -m mobivid_core.data.folder FOLDER

prints what would be used and what would be skipped, and why. Nothing is dropped without being named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.shots import find_shots, windows
from mobivid_core.data.video_io import FRAME_RATE, frames_to_clip, iterate_frames
from mobivid_core.errors import ParameterError, VideoError

VIDEO_SUFFIXES = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"})


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


@dataclass
class FolderReport:
    """What became of each file of a folder."""

    folder: Path
    used: list[UsedFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)

    def __str__(self) -> str:
        clips = sum(file.clips for file in self.used)
        lines = [f"{self.folder}: {clips} clips from {len(self.used)} files, {len(self.skipped)} skipped"]
        lines += [
            f"  used     {file.name}: {file.clips} clips from {file.shots} shots, {file.frames} frames"
            for file in self.used
        ]
        lines += [f"  skipped  {file.name}: {file.reason}" for file in self.skipped]
        return "\n".join(lines)


def clips_from_folder(
    folder: Path | str,
    *,
    frames: int = 17,
    size: int | tuple[int, int] = 128,
    per_file: int = 64,
) -> tuple[Tensor, FolderReport]:
    """Read every video under a folder into clips.

    Each video is cut into shots; each shot into non-overlapping clips, its middle first. Files faster than
    24 frames a second lose frames; slower ones keep their rate, so that their motion looks faster.

    Args:
        folder: Searched with its subfolders, in name order; names that begin with a dot are passed over.
        frames: Frames of a clip.
        size: Height and width of a clip in pixels, or one number for a square.
        per_file: Clips taken from one file at most, spread over its shots.

    Returns:
        Clips (N, 3, T, H, W) float32 in [-1, 1], and the report of used and skipped files.

    Raises:
        ParameterError: Not a folder, or a count below 1.
        VideoError: No file of the folder gave a clip; the message lists the reasons.
    """
    if frames < 1 or per_file < 1:
        raise ParameterError(f"frames and per_file must be at least 1, got {frames} and {per_file}")
    sides = (size, size) if isinstance(size, int) else size
    clips, report = [], FolderReport(Path(folder))
    for path in _files(Path(folder)):
        name = path.relative_to(folder).as_posix()
        try:
            own, used = clips_of_file(path, name, frames, sides, per_file)
        except VideoError as error:
            report.skipped.append(SkippedFile(name, str(error).removeprefix(f"{path.name}: ")))
        else:
            clips += [frames_to_clip(clip) for clip in own]
            report.used.append(used)
    if not clips:
        raise VideoError(f"no clip of {frames} frames in this folder. {report}")
    return torch.stack(clips), report


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ParameterError(f"{folder} is not a folder; give one that holds videos")
    inner = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in inner if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def clips_of_file(
    path: Path, name: str, frames: int, size: tuple[int, int], per_file: int
) -> tuple[list[np.ndarray], UsedFile]:
    """Clips of one video, uint8 (T, H, W, 3) each, at most `per_file`, and what to report of it as `name`.

    Raises:
        VideoError: The file is not a video, cannot be decoded, or is too short.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise VideoError(f"not a video file name ({path.suffix or 'no suffix'})")
    pictures = list(iterate_frames(path, size=size, max_fps=FRAME_RATE))
    shots = find_shots(pictures)
    queues = [windows(first, length, frames) for first, length in shots]
    rounds = [queue[rank] for rank in range(max(map(len, queues))) for queue in queues if rank < len(queue)]
    starts = sorted(rounds[:per_file])
    if not starts:
        longest = max(length for _, length in shots)
        raise VideoError(f"its longest shot has {longest} frames at {FRAME_RATE} a second, fewer than {frames}")
    clips = [np.stack(pictures[start : start + frames]) for start in starts]
    return clips, UsedFile(name, len(pictures), len(shots), len(clips))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder from the command line; returns the exit status (1 where nothing can be used)."""
    parser = argparse.ArgumentParser(prog="python -m mobivid_core.data.folder", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=17, help="frames of a clip (default 17)")
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels (default 128)")
    options = parser.parse_args(arguments)
    try:
        _, report = clips_from_folder(options.folder, frames=options.frames, size=options.size)
    except (ParameterError, VideoError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
