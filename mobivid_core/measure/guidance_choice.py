"""Which guidance suits a model: constant scales, intervals of noise levels and rescaling, on validation captions.

Paper: guidance of the server model; its scale is not public. Guided latents are wider than real ones and saturate
colours, so the table says the spread of the latents and the accuracy of colours beside accuracy and distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.measures import render_batches
from mobivid_core.measure.screening import COARSE, check_validation, rank, screen, screened_table

#: What is tried: scales at all noise levels, in the middle of the path, from the start down to a low level, rescaled.
GUIDANCES: tuple[Guidance, ...] = (
    *(Guidance(scale) for scale in (1.0, 1.5, 2.0, 3.0, 4.5)),
    *(Guidance(scale, 0.2, 0.8) for scale in (3.0, 4.5)),
    *(Guidance(scale, 0.0, 0.8) for scale in (3.0, 4.5)),
    *(Guidance(scale, rescale=0.7) for scale in (3.0, 4.5)),
    Guidance(4.5, 0.2, 0.8, 0.7),
)


@dataclass(frozen=True)
class GuidanceChoice:
    """What a choice of guidance found: a row a setting, the chosen one first; in which features; by which sampler."""

    table: pd.DataFrame
    best: Guidance
    space: str
    sampler: str

    def finding(self) -> str:
        """One sentence for a finding."""
        rows = self.table[self.table["round"] == "final"]
        chosen, plain = rows.iloc[0], rows[(rows["low"] == 0) & (rows["high"] == 1) & (rows["rescale"] == 0)]
        rival = plain[plain["guidance"] != chosen["guidance"]].head(1)
        beside = "".join(
            f"; the best constant scale beside it, {r.guidance}: {r.all_together:.0%}, {r.distance:.3g}, {r.spread:.2f}"
            for r in rival.itertuples()
        )
        return (
            f"Chosen on {chosen.n} validation captions ({self.sampler}): guidance {chosen.guidance}; every attribute "
            f"right in {chosen.all_together:.0%}, distance {chosen.distance:.3g}, latents {chosen.spread:.2f} times as "
            f"wide as real ones{beside}. Distances in {self.space}."
        )


def choose_guidance(
    evaluator: Evaluator,
    model: nn.Module,
    *,
    settings: Sequence[float | Guidance] = GUIDANCES,
    coarse: int = COARSE,
    finalists: int = 4,
    steps: int | None = None,
    solver: str = "euler",
    seed: int = 0,
    batch: int = 32,
) -> GuidanceChoice:
    """Choose among guidance settings on validation captions, with the same noises for each (`screening.screen`).

    The evaluator's captions, of `split="val"`, make the final round; `steps` None are the profile's teacher's.

    Returns:
        The table has guidance, scale, low, high, rescale, evaluations (of the network, a clip), n, all_together and
        distance with intervals, colour, spread (std of the latents over that of the same captions' real clips), round.
    """
    check_validation(evaluator)
    n, reference = len(evaluator.labels), evaluator.reference
    samplers = {g: evaluator.way(steps, g, solver) for g in map(as_guidance, settings)}
    spreads: dict[Guidance, float] = {}

    def evaluation(guidance: Guidance) -> Callable[[int], Evaluation]:
        """From a number of captions to the evaluation; notes the spread of the latents in passing."""

        def run(count: int) -> Evaluation:
            sample, seen = samplers[guidance].on(model, batch=batch), []

            def noted(captions: Sequence[str], noise: Tensor) -> Tensor:
                seen.append(sample(captions, noise))
                return seen[-1]

            found = evaluator.evaluate_sampler(
                noted, n=count, seed=seed, batch=batch, keep=0, quality=False, progress=False
            )
            spreads[guidance] = _spread(seen)
            return found

        return run

    found = screen({g: evaluation(g) for g in samplers}, reference, n=n, coarse=coarse, finalists=finalists)
    real = real_spread(evaluator, n)
    cells = {
        g: {
            "guidance": g.name, "scale": g.scale, "low": g.low, "high": g.high, "rescale": g.rescale,
            "evaluations": sampler.evaluations, "spread": spreads[g] / real,
        }
        for g, sampler in samplers.items()
    }  # fmt: skip
    table, best = screened_table(found, reference, cells), rank(found.final, reference)[0]
    return GuidanceChoice(table, best, reference.space.finding(), f"{solver} in {samplers[best].steps} steps")


@torch.no_grad()
def real_spread(evaluator: Evaluator, n: int) -> float:
    """Standard deviation of the normalised latents of the first n real clips of the evaluator's captions."""
    profile, vae = evaluator.profile, evaluator.vae
    drawn = render_batches(evaluator.split, 0, n, frames=profile.frames, size=profile.size)
    return _spread([vae.encode_latents(part.clips.to(vae.device)) for part in drawn])


def _spread(latents: list[Tensor]) -> float:
    return torch.cat(latents).double().std(correction=0).item()
