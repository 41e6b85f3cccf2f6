"""Measured time of two models, side by side: does a pruned model run faster by as much as was counted?"""

from __future__ import annotations

import time

import numpy as np
import torch

from mobivid_core.compress.calibration import CalibrationSet
from mobivid_core.compress.kd import forward
from mobivid_core.models.dit import MobiVidTransformer3DModel


@torch.no_grad()
def time_ratio(
    small: MobiVidTransformer3DModel, large: MobiVidTransformer3DModel, batch: CalibrationSet, repeats: int = 10
) -> tuple[float, float, float]:
    """Seconds of `small` over seconds of `large`, in turns, so that a busy machine slows both alike.

    Args:
        small: The pruned model.
        large: Its teacher.
        batch: Inputs of both.
        repeats: Pairs of runs, after one warm-up of each.

    Returns:
        (median ratio, lower and upper quartile) over pairs.
    """
    ratios = []
    for i in range(repeats + 1):
        seconds = []
        for model in (small, large):
            began = time.perf_counter()
            forward(model, batch)
            seconds.append(time.perf_counter() - began)
        if i:
            ratios.append(seconds[0] / seconds[1])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)
