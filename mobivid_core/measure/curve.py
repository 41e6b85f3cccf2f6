"""The curve the paper starts from: quality against steps, guidance and solver, with the time of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from torch import nn

from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import Solver, textbook_sigmas
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.minivbench import Scores, table

#: Measures of a curve: the headline ones, which do not saturate; "distance" is from reconstructions, trusted space.
CURVE = ("all_together", "object_class", "action", "distance")


@dataclass(frozen=True)
class Point:
    """One way of sampling.

    Attributes:
        solver: As in `make_scheduler`.
        steps: Steps on the textbook grid.
        guidance: Classifier-free guidance: a scale or a `Guidance`.
    """

    solver: Solver
    steps: int
    guidance: float | Guidance

    @property
    def calls(self) -> int:
        """Passes of the model a clip: two a guided step."""
        return as_guidance(self.guidance).evaluations(textbook_sigmas(self.steps))


def trace(
    evaluator: Evaluator,
    model: nn.Module,
    points: Sequence[Point],
    *,
    n: int,
    seed: int = 0,
    known: dict[Point, Evaluation] | None = None,
) -> pd.DataFrame:
    """Quality and time of a model at several ways of sampling, same captions and same noise at each.

    Args:
        evaluator: Prepared with n captions or more.
        model: The diffusion model.
        points: Ways of sampling, in the order of the rows.
        n: Clips a point: the first test captions.
        seed: Seed of the noise.
        known: Evaluations already made with the same seed; their first n clips are used again.

    Returns:
        solver, steps, guidance, calls, n, the measures of `CURVE` with intervals, and seconds_per_clip.
    """
    rows: list[Scores] = []
    seconds = []
    for point in points:
        run = (known or {}).get(point)
        if run is None:
            run = evaluator.evaluate(
                model,
                n=n,
                steps=point.steps,
                guidance=point.guidance,
                solver=point.solver,
                seed=seed,
                keep=0,
                quality=False,
                progress=False,
            )
        rows.append(evaluator.score(run.measures[:n], run.labels[:n]))
        seconds.append(run.seconds_per_clip)
    distance = evaluator.reference.space.reconstruction
    names = [distance if name == "distance" else name for name in CURVE]
    frame = table({str(i): scores for i, scores in enumerate(rows)}, names).drop(columns="clips")
    frame = frame.rename(columns={f"{distance}{end}": f"distance{end}" for end in ("", "_low", "_high")})
    for place, name in enumerate(("solver", "steps", "guidance", "calls")):
        frame.insert(place, name, [getattr(point, name) for point in points])
    return frame.assign(seconds_per_clip=seconds)


def fewest_steps(frame: pd.DataFrame, measure: str = "all_together") -> Point:
    """The way of sampling with the fewest passes whose interval reaches the best value of `measure`.

    Args:
        frame: From `trace`.
        measure: A share: higher is better.
    """
    good = frame[frame[f"{measure}_high"] >= frame[measure].max()]
    row = good.sort_values(["calls", measure], ascending=[True, False]).iloc[0]
    return Point(row.solver, int(row.steps), row.guidance)
