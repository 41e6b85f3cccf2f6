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

import pandas as pd
import torch
from torch import Tensor, nn

from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance, as_guidance
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


@dataclass(frozen=True)
class Screened:
    """Evaluations of the finalists on all captions, and of every setting on the coarse ones (empty without a round)."""

    final: dict[Hashable, Evaluation]
    coarse: dict[Hashable, Evaluation]


def check_validation(evaluator: Evaluator) -> None:
    """Refuse to choose on captions that results are reported on."""
    if evaluator.split != "val":
        raise ParameterError(
            f"settings are chosen on validation captions, this evaluator holds {evaluator.split!r}: prepare one with "
            'split="val"'
        )


def screen(
    settings: Mapping[Hashable, Callable[[int], Evaluation]],
    reference: Reference,
    *,
    n: int,
    coarse: int = COARSE,
    finalists: int = 4,
) -> Screened:
    """Measure all settings on `coarse` captions and the best `finalists` of them (`rank`) on n.

    `settings` gives each one's evaluation on the first so many captions. With `coarse` from n up, all settings are
    finalists and there is one round.
    """
    if not settings or finalists < 1:
        raise ParameterError(f"a screening needs a setting and a finalist, got {len(settings)} and {finalists}")
    if coarse >= n or len(settings) <= finalists:
        return Screened({name: run(n) for name, run in settings.items()}, {})
    first = {name: run(coarse) for name, run in settings.items()}
    kept = rank(first, reference)[:finalists]
    return Screened({name: settings[name](n) for name in kept}, first)


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


def screened_table(found: Screened, reference: Reference, columns: Mapping[Hashable, Mapping]) -> pd.DataFrame:
    """A row a setting: finalists on all captions first, then those that the coarse round dropped.

    After each setting's cells of `columns`: n, all_together and distance (from the codec's clips) with `_low`
    and `_high`, colour, round ("final" or "coarse").
    """
    rows = []
    dropped = {name: run for name, run in found.coarse.items() if name not in found.final}
    for stage, runs in (("final", found.final), ("coarse", dropped)):
        for name in rank(runs, reference) if runs else ():
            scores = runs[name].scores
            row: dict[str, object] = {**columns[name], "n": scores.n}
            for title, key in (("all_together", "all_together"), ("distance", reference.space.reconstruction)):
                row[title], row[f"{title}_low"], row[f"{title}_high"] = scores.values[key]
            rows.append(row | {"colour": scores["color"], "round": stage})
    return pd.DataFrame(rows)


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
    n, reference = len(evaluator.labels), evaluator.reference
    samplers = {g: evaluator.way(steps, g, solver) for g in map(as_guidance, settings)}
    spreads: dict[Guidance, float] = {}

    def evaluation(guidance: Guidance) -> Callable[[int], Evaluation]:
        """From a number of captions to the evaluation; notes the spread of the latents in passing."""

        def run(count: int) -> Evaluation:
            sample, seen = samplers[guidance].on(model), []

            def noted(captions: Sequence[str], noise: Tensor) -> Tensor:
                seen.append(sample(captions, noise))
                return seen[-1]

            found = evaluator.evaluate_sampler(noted, n=count, seed=seed, keep=0, quality=False, progress=False)
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
