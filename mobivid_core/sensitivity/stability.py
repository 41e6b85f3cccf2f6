"""Stability of the ranking: other probes, other clips, fewer clips, low or high noise (reviewer 5's question).

A ranking that changed with the calibration set would be an effect of sampling, not a property of the model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pandas as pd
import torch
from torch import Tensor

from mobivid_core.measure.intervals import rank_correlation
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import FFN_SLICES, gauss_newton_sensitivity
from mobivid_core.sensitivity.kd import default_features, reference
from mobivid_core.sensitivity.scores import Scores


def ranking_stability(
    model: MobiVidTransformer3DModel,
    calibration: CalibrationSet,
    probes: int = 2,
    slices: int = FFN_SLICES,
    null: tuple[Tensor, Tensor] | None = None,
) -> pd.DataFrame:
    """Spearman correlation between Gauss-Newton rankings from two versions of the calibration (at least 8 samples).

    With `null`, the empty caption's (text (1, L, D), mask (1, L)), the two calls of guided sampling are compared too.
    """
    order = torch.arange(len(calibration))
    low = calibration.timestep <= calibration.timestep.median()
    whole = torch.ones_like(low)
    pairs = {
        "other probes, same clips": ((whole, 0), (whole, 1)),
        "other clips": ((order % 2 == 0, 0), (order % 2 == 1, 0)),
        "an eighth of the clips": ((whole, 0), (order % 8 == 0, 0)),
        "low noise against high noise": ((low, 0), (~low, 0)),
    }
    if null is not None:
        text, mask = null[0].expand_as(calibration.text).to(calibration.text), null[1].expand_as(calibration.mask)
        silent = replace(calibration, text=text, mask=mask)
        pairs["with caption against without (guidance calls both)"] = ((whole, 0), (whole, 0, silent))

    @cache
    def scored(chosen: Tensor, seed: int, words: CalibrationSet = calibration) -> Scores:
        against = reference(model, words.take(chosen), default_features(len(model.blocks)))
        return gauss_newton_sensitivity(model, against, probes, slices, seed)[1]

    rows = []
    for change, (one, other) in pairs.items():
        a, b = scored(*one), scored(*other)
        widths, blocks = (rank_correlation(a.flat(k), b.flat(k)) for k in ("widths", "blocks"))
        rows.append((change, f"{int(one[0].sum())} / {int(other[0].sum())}", *widths, blocks[0]))
    return pd.DataFrame(rows, columns=["changed", "samples", "rho heads and FFN", "low", "high", "rho blocks"])
