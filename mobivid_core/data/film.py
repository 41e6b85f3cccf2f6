"""The shipped film: shots of *Big Buck Bunny*, split by shot.

Source: (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0; data/README.md says what was changed.
The paper trains and measures its VAE on large video collections; one animated film stands in for them here,
so its numbers speak of this film. The halves share characters and sets, but no shot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mobivid_core.data.shots import rounds, windows
from mobivid_core.data.video_io import frames_to_clip, read_spans
from mobivid_core.errors import ParameterError, VideoError
from mobivid_core.files import sha256
from mobivid_core.paths import data_dir

SPLITS = ("train", "test")
FILM_HEIGHT = 128  # pixels; the files are 172 wide: the paper's 4:3
CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Shot:
    """One shot of the film."""

    shot: int  # number in the film's order
    file: str  # video file in data/clips
    first_frame: int  # first frame in that file
    frames: int  # length in frames, at 24 a second
    split: str
    film_frame: int  # first frame in the film itself


@dataclass(frozen=True)
class FilmClips:
    """Clips of the film."""

    clips: Tensor  # (N, 3, T, H, W) float32 in [-1, 1], in the film's order
    shots: list[int]  # shot number of each clip
    film_frames: list[int]  # first frame of each clip in the film


def clips_dir() -> Path:
    """Folder of the shipped shots."""
    return data_dir() / "clips"


@contextmanager
def shipped_film(file: str) -> Iterator[None]:
    """While reading a shipped file: see that it is what was shipped, and add the remedy to what is wrong."""
    try:
        yield
        _as_shipped(clips_dir() / file)
    except VideoError as error:
        raise VideoError(f"{error}. Restore the shipped film with `git checkout -- data/clips`") from error


@cache
def _as_shipped(path: Path) -> None:
    """Raise VideoError where a file is not the one in `SHA256SUMS` (the format of sha256sum); without a list, pass."""
    # a decoder notices a file that breaks off, not bytes that changed: those would only show in the picture
    table = path.parent / CHECKSUMS
    known = dict(reversed(line.split()) for line in table.read_text().splitlines()) if table.is_file() else {}
    if path.name in known and sha256(path) != known[path.name]:
        raise VideoError(f"{path.name} is not the shipped file (its SHA-256 is another): damaged, or changed")


def film_shots(split: str | None = None) -> list[Shot]:
    """Shots of one split, or of both, in the film's order."""
    if split is not None and split not in SPLITS:
        raise ParameterError(f"unknown split {split!r}; the film has {' and '.join(SPLITS)}")
    table = clips_dir() / "shots.csv"
    if not table.is_file():
        raise VideoError(f"{table} is missing: the film's shots come with the repository, check data/clips out again")
    return [shot for shot in read_shots(table) if split in (None, shot.split)]


def read_shots(table: Path) -> list[Shot]:
    """The rows of a table of shots."""
    return [Shot(**row) for row in pd.read_csv(table).to_dict("records")]


def film_clips(split: str, *, frames: int = 17, size: int = 128, limit: int | None = None) -> FilmClips:
    """Non-overlapping clips of the film's shots: square centre crops of `size` (at most 128) pixels, 24 frames/s.

    With a limit, the middle of every shot comes before a second clip of any. All of `train` at 17x128x128 takes 1.8 GB.
    ParameterError for an unknown split or a larger size, VideoError where no shot is long enough, or a file is missing
    or cut short.
    """
    if not 0 < size <= FILM_HEIGHT:
        raise ParameterError(f"the shipped film is {FILM_HEIGHT} pixels high, got size={size}; ask for at most that")
    if frames < 1 or (limit is not None and limit < 1):
        raise ParameterError(f"frames and limit must be at least 1, got frames={frames} and limit={limit}")
    shots, chosen = film_shots(split), []
    for level in rounds([[(s, start) for start in windows(s.first_frame, s.frames, frames)] for s in shots]):
        left = len(level) if limit is None else min(limit - len(chosen), len(level))
        # Middles of equal shares, so that a small limit still reaches the whole film.
        chosen += [level[int((k + 0.5) * len(level) / left)] for k in range(left)]
    chosen.sort(key=lambda pair: (pair[0].file, pair[1]))
    if not chosen:
        longest = max(shot.frames for shot in shots)
        raise VideoError(f"no shot of {split} has {frames} frames; the longest has {longest}")
    clips = []
    for file, own in groupby(chosen, lambda pair: pair[0].file):
        with shipped_film(file):
            spans = read_spans(clips_dir() / file, [s for _, s in own], frames, crop=FILM_HEIGHT, size=size)
            clips += map(frames_to_clip, spans)
    return FilmClips(
        clips=torch.stack(clips),
        shots=[shot.shot for shot, _ in chosen],
        film_frames=[shot.film_frame + start - shot.first_frame for shot, start in chosen],
    )
