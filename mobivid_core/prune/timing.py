"""Timing two models side by side: is the pruned model faster by as much as its FLOPs suggest?"""

from __future__ import annotations

import time

import torch

from mobivid_core.measure.intervals import Interval, speed
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.kd import forward


@torch.no_grad()
def time_ratio(
    small: MobiVidTransformer3DModel, large: MobiVidTransformer3DModel, batch: CalibrationSet, repeats: int = 10
) -> Interval:
    """Seconds of `small` over seconds of `large`: the median over pairs of runs (see `intervals.speed`).

    The models run in turns, so that a busy machine slows both alike, after one warm-up of each.
    """
    taken: tuple[list[float], list[float]] = [], []
    for i in range(repeats + 1):
        for model, seconds in zip((small, large), taken, strict=True):
            began = time.perf_counter()
            forward(model, batch)
            if i:
                seconds.append(time.perf_counter() - began)
    return speed([taken[0]], [taken[1]])
