"""How a loss of PSNR reaches each sub-score (reviewer question R2.2), by one judge and one benchmark.

Clips are degraded step by step by a codec, with everything else fixed; each step is scored by what the judge still
reads (VBench's semantic dimensions) and by MiniVBench's quality dimensions. A better PSNR matters to a sub-score only
up to where its curve is flat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from mobivid_core.data.captions import ATTRIBUTES, ClipLabel, label_indices
from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.frechet import distance_interval
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.measure.measures import measure
from mobivid_core.measure.minivbench import QUALITY, Reference, dimension_table
from mobivid_core.measure.quality import ImagingReference, imaging_statistics
from mobivid_core.measure.reconstruction import psnr

#: What the judge reads, in the order of the tables.
READ = (*ATTRIBUTES, "all")


def subscores(
    versions: Mapping[str, Tensor], originals: Tensor, labels: Sequence[ClipLabel], judge: Judge, *, looked_at: int = 24
) -> pd.DataFrame:
    """Every sub-score of several versions of the same captioned clips (N, 3, T, H, W).

    Quality dimensions (optical flow is slow) are of `looked_at` clips; the judge reads all.

    Returns:
        One row a version, the "original" first: `version`, `psnr_db` (blank for the originals), the judge's accuracy on
        each attribute and on `all` (with `all_low` and `all_high`), and MiniVBench's quality dimensions on [0, 1].
    """
    if len(labels) != len(originals) or any(clips.shape != originals.shape for clips in versions.values()):
        raise ParameterError(
            f"needs versions of the originals' shape {tuple(originals.shape)} and a label for each clip"
        )
    few = labels[:looked_at]
    imaging = ImagingReference.fit(imaging_statistics(originals))
    rows = []
    for name, clips in {"original": originals, **versions}.items():
        right = accuracy(judge.predict(clips), label_indices(labels))
        row: dict[str, object] = {"version": name}
        row["psnr_db"] = np.nan if name == "original" else psnr(clips, originals).mean().item()
        row |= {attribute: right[attribute].mean().item() for attribute in READ}
        _, row["all_low"], row["all_high"] = intervals.mean(right["all"].numpy())
        measured = measure(clips[:looked_at], judge)
        table = dimension_table(measured, few, Reference(imaging, measured.features))
        row |= {dimension: float(np.mean(table[dimension])) for dimension in QUALITY}
        rows.append(row)
    return pd.DataFrame(rows)


def thresholds(table: pd.DataFrame, kept: float = 0.95) -> pd.DataFrame:
    """The PSNR below which each sub-score is no longer `kept` of what the originals have, a row a sub-score.

    `lowest` is at the lowest PSNR, `psnr_db_needed` between the measured points: blank for a score that never falls so
    far, or that the best version has lost already.
    """
    whole = table.loc[table.version == "original"].iloc[0]
    worse = table.loc[table.version != "original"].sort_values("psnr_db")
    rows = []
    for name in (*READ, *QUALITY):
        share = (worse[name] / max(whole[name], 1e-9)).to_numpy()
        enough = share >= kept
        needed = np.nan
        if enough[-1] and not enough.all():
            last = int(np.flatnonzero(~enough)[-1])  # from here up it stays above
            x, y = worse.psnr_db.to_numpy()[last : last + 2], share[last : last + 2]
            needed = float(x[0] + (kept - y[0]) / (y[1] - y[0]) * (x[1] - x[0]))
        rows.append((name, whole[name], worse[name].iloc[0], needed))
    return pd.DataFrame(rows, columns=["sub-score", "original", "lowest", "psnr_db_needed"])


def brief_scores(clips: Tensor, labels: Sequence[ClipLabel], judge: Judge, real: Tensor) -> dict[str, float]:
    """A short row for generated clips (N, 3, T, H, W): what the judge reads, and how far they are from real ones.

    The judge's accuracy on each attribute and on `all`; `frechet` with `frechet_low` and `frechet_high` from features
    `real` (M, F) of other clips: keep N and M the same in all rows of a table.
    """
    classes, features = judge.read(clips)
    right = accuracy(classes, label_indices(labels))
    row = {attribute: right[attribute].mean().item() for attribute in READ}
    distance = distance_interval(features, real, resamples=60)
    return row | intervals.named("frechet", distance)
