"""Split a film into shots at jumps of colour histograms.

A clip that straddles a cut teaches a video model to jump. The rule is the plainest that works on animated
film: a cut is where the histograms of two neighbouring frames differ much, both absolutely and against
the frames around. Dissolves and wipes are not found; whip pans may be taken for cuts, which only costs clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
MIN_JUMP = 0.2  # share of the histogram mass that must move
MIN_RATIO = 4.0  # times the median jump of the neighbourhood: fast motion is not a cut
NEIGHBOURHOOD = 8  # frames to either side


def histogram(frame: np.ndarray) -> np.ndarray:
    """Joint 4x4x4 colour histogram of the left, middle and right third; uint8 (H, W, 3) -> float (192,), sum 1.

    Thirds, because a cut within one set keeps the colours and moves them.
    """
    levels = frame[::2, ::2].astype(np.int64) >> 6
    codes = levels[..., 0] * 16 + levels[..., 1] * 4 + levels[..., 2]
    thirds = [np.bincount(part.ravel(), minlength=64) for part in np.array_split(codes, 3, axis=1)]
    return np.concatenate(thirds) / codes.size


def _cuts(jumps: np.ndarray) -> list[int]:
    """Frames at which a new shot begins, by half the L1 distance between the histograms of frames i and i + 1."""
    if not len(jumps):
        return []
    padded = np.pad(jumps, NEIGHBOURHOOD, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURHOOD + 1), axis=1)
    candidates = np.flatnonzero((jumps > MIN_JUMP) & (jumps > MIN_RATIO * usual))
    # A flash gives several candidates in a row: keep the largest.
    return [int(i) + 1 for i in candidates if jumps[i] == jumps[max(0, i - 3) : i + 4].max()]


def find_shots(frames: Iterable[np.ndarray]) -> list[tuple[int, int]]:
    """Shots of a film as `(first frame, number of frames)`, in order, covering every frame."""
    previous, jumps, count = None, [], 0
    for frame in frames:
        current = histogram(frame)
        if previous is not None:
            jumps.append(float(np.abs(current - previous).sum()) / 2)
        previous, count = current, count + 1
    edges = [0, *_cuts(np.array(jumps)), count] if count else []
    return [(first, end - first) for first, end in zip(edges, edges[1:], strict=False)]


def windows(first: int, length: int, frames: int) -> list[int]:
    """Starts of the disjoint windows in one shot, middle ones first: its ends hold fades and half-finished moves."""
    number = length // frames
    margin = (length - number * frames) // 2
    starts = [first + margin + k * frames for k in range(number)]
    return sorted(starts, key=lambda start: (abs(2 * start + frames - 2 * first - length), start))


def rounds(queues: Sequence[Sequence[T]]) -> list[list[T]]:
    """The first of every queue, then the second of all that have one, and so on."""
    longest = max(map(len, queues), default=0)
    return [[queue[rank] for queue in queues if rank < len(queue)] for rank in range(longest)]
