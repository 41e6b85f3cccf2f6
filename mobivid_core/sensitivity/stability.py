"""How stable the ranking is: other probes, other clips, fewer clips, low or high noise (reviewer 5's question).

A ranking that changed with the calibration set would be no design principle but an accident of sampling.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pandas as pd
import torch
from torch import Tensor

from mobivid_core.measure.intervals import rank_correlation
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import FFN_SLICES, gauss_newton_sensitivity
from mobivid_core.sensitivity.kd import default_features, reference
from mobivid_core.sensitivity.scores import Scores


def subset(calibration: CalibrationSet, chosen: Tensor) -> CalibrationSet:
    """The samples where `chosen` (N,) bool is true."""
    return CalibrationSet(*(getattr(calibration, f.name)[chosen] for f in fields(calibration)))


def ranking_stability(
    model: MobiVidTransformer3DModel,
    calibration: CalibrationSet,
    probes: int = 2,
    slices: int = FFN_SLICES,
    null: tuple[Tensor, Tensor] | None = None,
) -> pd.DataFrame:
    """Spearman correlation between Gauss-Newton rankings from two versions of the calibration.

    Args:
        model: The teacher.
        calibration: At least 8 samples.
        probes: Probes of each ranking.
        slices: FFN slices of the ranking.
        null: (text (1, L, D), mask (1, L)) of the empty caption: also compare the two calls of guided sampling.

    Returns:
        One row a comparison: what changed, samples of each side, rho over heads and FFN slices and over blocks.
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
        silent = replace(
            calibration,
            text=null[0].expand_as(calibration.text).to(calibration.text),
            mask=null[1].expand_as(calibration.mask),
        )
        pairs["with caption against without (guidance calls both)"] = ((whole, 0), (whole, 0, silent))
    known: dict[tuple, Scores] = {}

    def scored(chosen: Tensor, seed: int, words: CalibrationSet = calibration) -> Scores:
        key = (tuple(chosen.tolist()), seed, id(words))
        if key not in known:
            against = reference(model, subset(words, chosen), default_features(len(model.blocks)))
            known[key] = gauss_newton_sensitivity(model, against, probes, slices, seed)[1]
        return known[key]

    rows = []
    for change, (one, other) in pairs.items():
        a, b = scored(*one), scored(*other)
        widths, blocks = (rank_correlation(a.flat(k), b.flat(k)) for k in ("widths", "blocks"))
        rows.append(
            {
                "changed": change,
                "samples": f"{int(one[0].sum())} / {int(other[0].sum())}",
                "rho heads and FFN": widths[0],
                "low": widths[1],
                "high": widths[2],
                "rho blocks": blocks[0],
            }
        )
    return pd.DataFrame(rows)
