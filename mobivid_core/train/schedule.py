"""Progress of a training run, by steps or by time, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
