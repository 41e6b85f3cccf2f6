"""Choosing ways of sampling on validation captions: all on a few clips, the best of them on many; and which guidance.

Nothing that is reported was chosen on the captions that it is reported on. A full cross of settings on hundreds of
captions would cost more than the teacher's whole evaluation, so a coarse round drops the settings that are clearly
worse, and only finalists are measured on all captions (successive halving with one halving).

Paper: guidance of the server model; its scale is not public. Guided latents are wider than real ones and saturate
colours, so the table says the spread of the latents and the accuracy of colours beside accuracy and distance.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.measure import intervals
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.measures import render_batches
from mobivid_core.measure.minivbench import Reference

#: Captions of the coarse round.
COARSE = 64
#: What is tried: scales at all noise levels, in the middle of the path, from the start down to a low level, rescaled.
GUIDANCES: tuple[Guidance, ...] = (
    *(Guidance(scale) for scale in (1.0, 1.5, 2.0, 3.0, 4.5)),
    *(Guidance(scale, 0.2, 0.8) for scale in (3.0, 4.5)),
    *(Guidance(scale, 0.0, 0.8) for scale in (3.0, 4.5)),
    *(Guidance(scale, rescale=0.7) for scale in (3.0, 4.5)),
    Guidance(4.5, 0.2, 0.8, 0.7),
)


def check_validation(evaluator: Evaluator) -> None:
    """Refuse to choose on captions that results are reported on."""
    if evaluator.split != "val":
        raise ParameterError(
            f"settings are chosen on validation captions, this evaluator holds {evaluator.split!r}: prepare one with "
            'split="val"'
        )


def screen(
    settings: Mapping[Hashable, Callable[[int], Evaluation]],
    cells: Callable[[Hashable], Mapping[str, object]],
    evaluator: Evaluator,
    *,
    coarse: int = COARSE,
    finalists: int = 4,
) -> tuple[pd.DataFrame, Hashable]:
    """Measure all settings on `coarse` captions and the best `finalists` of them (`rank`) on all: (table, the best).

    `settings` gives each one's evaluation on the first so many captions. With `coarse` from all captions up, all
    settings are finalists and there is one round.

    The table has a row a setting: finalists first, then those that the coarse round dropped. After each setting's
    `cells`: n, all_together and distance (from the codec's clips) with `_low` and `_high`, colour, round ("final" or
    "coarse").
    """
    if not settings or finalists < 1:
        raise ParameterError(f"a screening needs a setting and a finalist, got {len(settings)} and {finalists}")
    n, reference = len(evaluator.labels), evaluator.reference
    kept, first = list(settings), {}
    if coarse < n and len(settings) > finalists:
        first = {name: run(coarse) for name, run in settings.items()}
        kept = rank(first, reference)[:finalists]
    final = {name: settings[name](n) for name in kept}
    dropped = {name: run for name, run in first.items() if name not in final}
    order, rows = rank(final, reference), []
    for name in (*order, *(rank(dropped, reference) if dropped else ())):
        scores = (final if name in final else dropped)[name].scores
        row = {**cells(name), "n": scores.n, **intervals.named("all_together", scores.values["all_together"])}
        row |= intervals.named("distance", scores.values[reference.space.reconstruction])
        rows.append(row | {"colour": scores["color"], "round": "final" if name in final else "coarse"})
    return pd.DataFrame(rows), order[0]


def rank(runs: Mapping[Hashable, Evaluation], reference: Reference) -> list[Hashable]:
    """Settings from best to worst: those whose accuracy is within chance of the best one by distance, then the rest.

    Accuracy saturates and a distance does not: among settings that meet their captions equally well, the one closest
    to the codec's clips (in the trusted space) is better. The rest follow by accuracy.
    """
    best = max(run.scores["all_together"] for run in runs.values())
    close = [name for name, run in runs.items() if run.scores.values["all_together"][2] >= best]
    rest = [name for name in runs if name not in close]
    return [
        *sorted(close, key=lambda name: runs[name].scores[reference.space.reconstruction]),
        *sorted(rest, key=lambda name: -runs[name].scores["all_together"]),
    ]


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
) -> GuidanceChoice:
    """Choose among guidance settings on validation captions, with the same noises for each (`screen`).

    The evaluator's captions, of `split="val"`, make the final round; `steps` None are the profile's teacher's.

    Returns:
        The table has guidance, scale, low, high, rescale, evaluations (of the network, a clip), n, all_together and
        distance with intervals, colour, spread (std of the latents over that of the same captions' real clips), round.
    """
    check_validation(evaluator)
    samplers = {g: evaluator.way(steps, g, solver) for g in map(as_guidance, settings)}
    spreads: dict[Guidance, float] = {}

    def run(guidance: Guidance, count: int) -> Evaluation:
        """The evaluation on the first captions; notes the spread of the latents in passing."""
        sample, seen = samplers[guidance].on(model), []

        def noted(captions: Sequence[str], noise: Tensor) -> Tensor:
            seen.append(sample(captions, noise))
            return seen[-1]

        found = evaluator.evaluate_sampler(noted, n=count, seed=seed, keep=0, quality=False, progress=False)
        spreads[guidance] = _spread(seen)
        return found

    def cells(g: Guidance) -> dict[str, object]:
        limits = {"scale": g.scale, "low": g.low, "high": g.high, "rescale": g.rescale}
        return {"guidance": g.name, **limits, "evaluations": samplers[g].evaluations, "spread": spreads[g] / real}

    real, runs = real_spread(evaluator), {g: partial(run, g) for g in samplers}
    table, best = screen(runs, cells, evaluator, coarse=coarse, finalists=finalists)
    space = evaluator.reference.space.finding()
    return GuidanceChoice(table, best, space, f"{solver} in {samplers[best].steps} steps")


@torch.no_grad()
def real_spread(evaluator: Evaluator) -> float:
    """Standard deviation of the normalised latents of the real clips of the evaluator's captions."""
    profile, vae = evaluator.profile, evaluator.vae
    drawn = render_batches(evaluator.split, 0, len(evaluator.labels), frames=profile.frames, size=profile.size)
    return _spread([vae.encode_latents(part.clips.to(vae.device)) for part in drawn])


def _spread(latents: list[Tensor]) -> float:
    return torch.cat(latents).double().std(correction=0).item()
