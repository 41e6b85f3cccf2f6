"""Wall time of several calls on a machine that other programs use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Key = TypeVar("Key")


def alternating_seconds(calls: Mapping[Key, Callable[[], object]], repeats: int) -> dict[Key, list[float]]:
    """Seconds of each repeat of each call, all called in turns after one warm-up, so that a busy machine slows all."""
    seconds: dict[Key, list[float]] = {key: [] for key in calls}
    for turn in range(repeats + 1):
        for key, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                seconds[key].append(time.perf_counter() - began)
    return seconds
