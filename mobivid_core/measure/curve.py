"""The curve the paper starts from: quality against steps, guidance and solver, with the time of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import nn

from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.minivbench import table
from mobivid_core.models.sampler import Sampler

#: Measures of a curve: the headline ones, which do not saturate; "distance" is from reconstructions, trusted space.
CURVE = ("all_together", "object_class", "action", "distance")
#: A point of the curve is a way of sampling.
Point = Sampler


def trace(
    evaluator: Evaluator,
    model: nn.Module,
    points: Sequence[Sampler],
    *,
    n: int,
    seed: int = 0,
    known: Mapping[Sampler, Evaluation] | None = None,
) -> pd.DataFrame:
    """Quality and time of a model at several ways of sampling, on the first n captions and the same noise at each.

    Of `known` evaluations, made with the same seed, the first n clips are used again.

    Returns:
        A row a point: solver, steps, guidance, calls, n, the measures of `CURVE` with intervals, seconds_per_clip.
    """
    how, runs = {"n": n, "seed": seed, "keep": 0, "quality": False, "progress": False}, dict(known or {})
    for point in points:
        if point not in runs:
            runs[point] = evaluator.run(model, point, **how)
    rows = [evaluator.score(runs[point].measures[:n], runs[point].labels[:n]) for point in points]
    distance = evaluator.reference.space.reconstruction
    names = [distance if name == "distance" else name for name in CURVE]
    frame = table({str(i): scores for i, scores in enumerate(rows)}, names).drop(columns="clips")
    frame = frame.rename(columns={f"{distance}{end}": f"distance{end}" for end in ("", "_low", "_high")})
    frame.insert(0, "solver", [point.solver for point in points])
    frame.insert(1, "steps", [point.steps for point in points])
    frame.insert(2, "guidance", [point.guidance for point in points])
    frame.insert(3, "calls", [point.evaluations for point in points])
    return frame.assign(seconds_per_clip=[runs[point].seconds_per_clip for point in points])


def fewest_steps(frame: pd.DataFrame) -> Sampler:
    """The way of sampling in a `trace` with the fewest passes whose interval reaches the best share of right clips."""
    good = frame[frame["all_together_high"] >= frame["all_together"].max()]
    row = good.sort_values(["calls", "all_together"], ascending=[True, False]).iloc[0]
    return Sampler(row.solver, int(row.steps), row.guidance)
