"""Progress of a training run, by steps or by time, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

#: The time estimate is measured between these steps of a run (the first ones compile and warm up).
_MEASURED = (3, 13)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, a peak that may be held, then a cosine down; it ends with the steps or the time, if sooner."""

    steps: int
    seconds: float | None = None  # training time in all, earlier parts of a run included; None for no limit
    warmup: int = 0  # steps of linear warm-up
    hold: float = 0.0  # share of the run that stays at the peak; until then, a longer schedule is the same run
    final_rate: float = 0.0  # rate at the end as a share of the peak

    def position(self, step: int, spent_s: float = 0.0) -> float:
        """Steps done, or the time spent in units of the steps, whichever is further; `steps` is the end."""
        return step if self.seconds is None else max(step, self.steps * spent_s / self.seconds)

    def rate(self, step: int, spent_s: float = 0.0) -> float:
        """Share of the peak learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        start = max(self.warmup, round(self.hold * self.steps))
        done = (self.position(step, spent_s) - start) / max(1, self.steps - start)
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


class Clock:
    """Seconds of a run with its earlier parts, and how long the rest will take."""

    def __init__(self, before: float, start: int) -> None:
        """Start now, after `start` steps that took `before` seconds."""
        self._before, self._start, self._began = before, start, time.perf_counter()
        self._marks: list[float] = []

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        return self._before + time.perf_counter() - self._began

    def tick(self, done: int) -> bool:
        """Note a finished step; True when the estimate is ready."""
        if done - self._start in _MEASURED:
            self._marks.append(time.perf_counter())
        return done - self._start == _MEASURED[1]

    def estimate(self, done: int, schedule: Schedule) -> str:
        """A line for the reader."""
        each = (self._marks[1] - self._marks[0]) / (_MEASURED[1] - _MEASURED[0])
        left = each * (schedule.steps - done)
        if schedule.seconds is not None and schedule.seconds - self.seconds < left:
            return f"{each:.3g} s a step; it ends by time, in about {duration(schedule.seconds - self.seconds)}"
        return f"{each:.3g} s a step; the {schedule.steps - done} steps left take about {duration(left)}"


def duration(seconds: float) -> str:
    """Seconds as hours and minutes, minutes, or seconds."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
