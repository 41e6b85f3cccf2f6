"""Training-free baselines alone: few steps of the guided teacher by known solvers, which live in `flow.sampling`.

Paper: the motivation of step distillation. Better solvers (UniPC, DPM++) of the same guided teacher are free, so the
student is compared with the best of them, not with plain Euler. The grid trap of diffusers: see `models.sampler`.
"""

from __future__ import annotations

import pandas as pd

from mobivid_core.distill.trajectory import student_sigmas
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import SOLVERS, shift_sigmas
from mobivid_core.models.sampler import Sampler, default_grid


def grid_table(steps: int = 4, shift: float = 3.0) -> pd.DataFrame:
    """The textbook grid beside diffusers' default one: one row a grid, one column a noise level."""
    rows = {
        "textbook": student_sigmas(steps),
        "diffusers default call": default_grid(steps),
        f"textbook, shift {shift:g}": shift_sigmas(student_sigmas(steps), shift),
        f"diffusers default call, shift {shift:g}": default_grid(steps, shift),
    }
    table = pd.DataFrame([values.tolist() for values in rows.values()]).add_prefix("sigma ")
    table.insert(0, "grid", list(rows))
    return table.assign(**{"last step covers": table[f"sigma {steps - 1}"] - table[f"sigma {steps}"]})


def euler_samplers(guidance: float | Guidance) -> list[Sampler]:
    """1, 2, 4 and 8 Euler steps with and without guidance: the failure that distillation has to repair."""
    return [Sampler("euler", n, g) for n in (1, 2, 4, 8) for g in (1.0, guidance)]


def baselines(guidance: float | Guidance, steps: int = 4) -> list[Sampler]:
    """The training-free baselines at the student's step count, each at half the guidance as well, and the grid traps.

    With few steps the best guidance scale is lower: at the full scale alone a baseline is understated.
    """
    guidance, solvers = as_guidance(guidance), sorted(SOLVERS, key="euler".__eq__)
    milder = guidance.halved()
    return [
        *(Sampler(solver, steps, guidance) for solver in solvers),
        *(Sampler(solver, steps, milder, shows_scale=True) for solver in solvers),
        Sampler("euler", steps, guidance, "diffusers default"),
        Sampler("euler", steps, guidance, "diffusers default", 3.0),
    ]


def few_steps_finding(frame: pd.DataFrame) -> str:
    """Quality of few steps of the teacher, for a finding.

    `frame` is from `minivbench.table` with the samplers' names as `clips`: the full one, then `euler_samplers`.
    """
    rows = frame.set_index("clips")
    right, moving = rows["all_together"], rows.loc["Euler-1, unguided", "action"]
    return (
        "Teacher in few Euler steps on the textbook grid. All attributes are right in "
        f"{right['Euler-4, unguided']:.0%} of clips in four unguided steps, {right['Euler-4, guided']:.0%} in four "
        f"guided ones, {right.iloc[0]:.0%} in full; motion in {moving:.0%} even in one unguided step. "
        f"{frame['n'].iloc[0]} clips; bars are 95 % bootstrap intervals."
    )
