"""The best training-free samplers: the baseline for a distilled student, and the teacher's cheapest equal.

Paper: the baseline of step distillation, and the claimed speed-up over 40 guided steps (C24). A student is compared
with the best that the same number of *network evaluations* buys without training. A guided step is two evaluations:
four evaluations are four unguided steps or two guided ones, and four guided steps are eight.

Solver, guidance, time shift and searched noise levels are crossed on validation captions. Which grid suits a solver at
a guidance is decided by its error to the full sampler of the same guidance (no decoding, `knots.grid_errors`); which
solver and guidance make the best clips is decided by decoded clips (`screen`). Reported numbers are then
measured on test captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import nn

from mobivid_core.distill.knots import grid_errors, validation_condition
from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import SOLVERS
from mobivid_core.measure import minivbench
from mobivid_core.measure.comparison import distance_ratio, mean_change
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.guidance_choice import COARSE, check_validation, screen
from mobivid_core.models.sampler import Sampler

#: Network evaluations at which students are compared: their own four, and four guided steps.
BUDGETS = (4, 8)
#: Noise levels that guidance within an interval guides: sigma above the first, up to the second.
INTERVAL = (0.2, 0.8)
#: Validation captions of the search of grids: an error of latents varies less than a share of right clips.
GRID_CAPTIONS = 24
#: Euler steps of the full samplers in that search, at the least.
FULL_STEPS = 20
#: Relative difference of distances that arithmetic alone makes: the same clips on two ways do not differ.
ROUNDING = 1e-3
#: Network evaluations tried in this order for the cheapest equal of the teacher.
LADDER = (4, 6, 8, 12, 16, 24, 32, 48)


@dataclass(frozen=True)
class FreeBaseline:
    """The best training-free sampler at a number of network evaluations."""

    # One row a candidate, finalists first: sampler, steps, guidance, evaluations, and what was measured
    table: pd.DataFrame
    best: Sampler
    evaluations: int  # network evaluations a clip that were allowed

    def finding(self) -> str:
        """One sentence for a finding."""
        row = self.table.iloc[0]
        return (
            f"At most {self.evaluations} network evaluations a clip: {self.best.name} ({self.best.evaluations}), every "
            f"attribute right in {row['all_together']:.0%}, distance {row['distance']:.3g} "
            f"({row['n']} validation captions)"
        )


def guidances(full: float | Guidance) -> tuple[Guidance, ...]:
    """Settings to try: none, 2, half of the full one's excess over none, the full one, its scale within an interval."""
    guidance = as_guidance(full)
    tried = Guidance(1.0), Guidance(2.0), guidance.halved(), guidance, Guidance(guidance.scale, *INTERVAL)
    return tuple(dict.fromkeys(tried))


def most_steps(guidance: float | Guidance, evaluations: int) -> int:
    """Most steps on the textbook grid within `evaluations` network evaluations; 0 where they do not pay for one."""
    affordable = (s for s in range(1, evaluations + 1) if Sampler("euler", s, guidance).evaluations <= evaluations)
    return max(affordable, default=0)


def candidates(
    model: nn.Module,  # the teacher
    shape: tuple[int, ...],  # (C, t, h, w) of a latent
    evaluations: int,  # network evaluations a clip that are allowed
    tried: Iterable[Guidance],
    *,
    captions: int = GRID_CAPTIONS,  # validation captions of the search
    seed: int = 0,  # of the noises
) -> list[Sampler]:
    """For each guidance the two solvers that come closest to its own full sampler, each on its best grid."""
    condition, found = validation_condition(captions, next(model.parameters()).device), []
    affordable = {guidance: most_steps(guidance, evaluations) for guidance in tried}
    for guidance, steps in ((guidance, steps) for guidance, steps in affordable.items() if steps):
        full = max(FULL_STEPS, steps)
        errors = grid_errors(model, condition, shape, guidance=guidance, steps=steps, full_steps=full, seed=seed)
        best = [min((s for s in errors if s.solver == solver), key=errors.get) for solver in SOLVERS]
        nearest = sorted(best, key=errors.get)
        # a shifted or searched grid may put more of its levels inside the guided interval
        found += [s for s in nearest if s.evaluations <= evaluations][:2]
    return found


def free_baseline(
    evaluator: Evaluator,  # of validation captions; all of them serve in the final round (256 or more, for results)
    model: nn.Module,  # the teacher, on any device
    *,
    evaluations: int,  # network evaluations a clip that are allowed
    tried: Iterable[Guidance] | None = None,  # None for `guidances` of the profile's
    coarse: int = COARSE,  # captions of the coarse round
    finalists: int = 2,  # candidates that reach the final round
    seed: int = 0,  # of the noises
) -> FreeBaseline:
    """The best training-free sampler at `evaluations` network evaluations, chosen on validation captions.

    Raises:
        ParameterError: The evaluator holds other captions, or not one step is affordable.
    """
    check_validation(evaluator)
    n, profile = len(evaluator.labels), evaluator.profile
    tried = guidances(profile.guidance) if tried is None else tried
    shape = evaluator.vae.latent_shape(profile.frames, profile.size, profile.size)
    able = candidates(model, shape, evaluations, tried, captions=min(GRID_CAPTIONS, n), seed=seed)
    if not able:
        raise ParameterError(f"{evaluations} network evaluations do not pay for one step at any of the guidances")

    def cells(s: Sampler) -> dict[str, object]:
        row = {"sampler": s.name, "steps": s.steps, "guidance": as_guidance(s.guidance).name}
        return row | {"evaluations": s.evaluations}

    runs = {s: _runner(evaluator, model, s, seed) for s in able}
    table, best = screen(runs, cells, evaluator, coarse=coarse, finalists=finalists)
    return FreeBaseline(table, best, evaluations)


@dataclass(frozen=True)
class Judged:
    """Training-free samplers on test captions."""

    table: pd.DataFrame  # one row a sampler: sampler, evaluations, n, and the measures with intervals
    chosen: dict[int, str]  # {network evaluations: name of the sampler that was chosen for them}
    measures: tuple[str, ...]

    def finding(self) -> str:
        """One sentence for a finding: the chosen samplers, and the baseline on the grid of the trap."""
        first = self.measures[0]
        shares = self.table.set_index("sampler")[first]
        told = [
            f"{k} network evaluations: {s}, {first.replace('_', ' ')} {shares[s]:.0%}" for k, s in self.chosen.items()
        ]
        told.append(f"{shares.index[-1]} {shares.iloc[-1]:.0%}")
        traps = [name for name in shares.index if "diffusers default" in name]
        told += [f"the trap {name} {shares[name]:.0%}" for name in traps[:1]]
        return f"On {self.table['n'].iloc[0]} test captions, {'; '.join(told)}."


def free_table(runs: Mapping[Sampler, Evaluation], free: Mapping[int, FreeBaseline], measures: Sequence[str]) -> Judged:
    """Samplers judged on the same test captions, in the order of `runs`; the last one is the full sampler.

    `free` has the sampler chosen for each number of network evaluations; `measures` begin with a share of clips.
    """
    table = minivbench.table({s.name: run.scores for s, run in runs.items()}, measures)
    table = table.rename(columns={"clips": "sampler"})
    table.insert(1, "evaluations", [s.evaluations for s in runs])
    return Judged(table, {count: f.best.name for count, f in free.items()}, tuple(measures))


@dataclass(frozen=True)
class CheapestEqual:
    """The cheapest sampler without a measurable difference from the full one."""

    table: pd.DataFrame  # one row a sampler tried, cheapest first
    sampler: Sampler  # the cheapest equal one; the full sampler where none is
    full: Sampler

    def finding(self) -> str:
        """One sentence for a finding."""
        if self.sampler is self.full:
            return f"No cheaper sampler equals {self.full.name} within the intervals ({len(self.table)} were tried)"
        n, own, full = self.table["n"].iloc[-1], self.sampler.evaluations, self.full.evaluations
        return (
            f"{self.sampler.name} is not shown to be worse than {self.full.name}: on {n} validation captions both "
            f"intervals hold no difference. It takes {own} network evaluations for {full}, {full / own:.1f} times fewer"
        )


def cheapest_equal(
    evaluator: Evaluator,  # of validation captions; all of them serve
    model: nn.Module,  # the teacher
    full: Sampler,  # its full sampler
    ladder: Sequence[Sampler] | None = None,  # tried until one is equal; None: every solver at the full guidance
    *,
    also: Iterable[Sampler] = (),  # further ones, such as those that `free_baseline` found for few evaluations
    coarse: int = COARSE,  # captions of the first look
    seed: int = 0,  # of the noises
) -> CheapestEqual:
    """The cheapest sampler that equals the full one: speed-ups are to be given over both.

    Equal means: on the same captions and noises, the 95 % interval of the change in accuracy reaches 0 and that of the
    ratio of distances from the codec's clips reaches 1. Few captions make everything equal, so all have to agree; a
    sampler that differs on the first `coarse` of them already is not measured on the rest.

    Raises:
        ParameterError: The evaluator holds other captions.
    """
    check_validation(evaluator)
    n, reference = len(evaluator.labels), evaluator.reference
    if ladder is None:
        pairs = ((solver, most_steps(full.guidance, e)) for e in LADDER for solver in SOLVERS)
        ladder = [Sampler(solver, steps, full.guidance) for solver, steps in dict.fromkeys(pairs) if steps]
    whole, rows, equal = _runner(evaluator, model, full, seed)(n), [], None
    for sampler in sorted((*also, *ladder), key=lambda s: s.evaluations):
        if equal or sampler.evaluations >= full.evaluations:
            break
        for count in dict.fromkeys((min(coarse, n), n)):
            run, same = _runner(evaluator, model, sampler, seed)(count), whole.measures[:count]
            change = mean_change(run.measures, same, run.labels, reference)
            ratio = distance_ratio(run.measures, same, reference, seed=seed)
            met = change[2] >= 0 and ratio[1] <= 1 + ROUNDING
            if not met:
                break
        row = {"sampler": sampler.name, "evaluations": sampler.evaluations, "n": count}
        row |= {"all_together": run.scores["all_together"]}
        row |= dict(zip(("change", "change_low", "change_high"), change, strict=True))
        row |= dict(zip(("distance / full", "low", "high"), ratio, strict=True))
        rows.append(row | {"interval": f"{change.kind}; {ratio.kind}", "equal": "yes" if met else "no"})
        equal = sampler if met else None
    return CheapestEqual(pd.DataFrame(rows), equal or full, full)


def _runner(evaluator: Evaluator, model: nn.Module, sampler: Sampler, seed: int) -> Callable[[int], Evaluation]:
    """From a number of captions to the evaluation of a sampler on the first so many."""
    return lambda count: evaluator.run(model, sampler, n=count, seed=seed, keep=0, quality=False, progress=False)
