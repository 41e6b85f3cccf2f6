"""Recorded trials of the discriminator: `mobivid study heads` and `mobivid study share`.

Paper: its discriminator ablation (Table 5; R1.4) and the real : synthetic share (R4.4). A discriminator can teach only
what it tells apart. Each trial trains the heads alone, as the adversarial stage warms them up, against one fixed
student; then they judge pairs of held-out clips of the same caption, one of them the student's. Trials share student,
trajectories, seeds and number of updates, and change one thing. Interrupted, the command goes on with those missing.

The number of updates was chosen on the first test captions; what is recorded is judged on others, from `FRESH_START`.

Simplified: the student stands still, so a trial says what a discriminator knows, not what a student learns from it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from mobivid_core.data.latents import LatentDataset
from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.discriminator import TeacherDiscriminator, default_depths
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import Trajectories, step_generator
from mobivid_core.flow.path import interpolate, normal
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.show.outcome import TableResult
from mobivid_core.studies.distillation_arms import Bench
from mobivid_core.studies.records import beside_trial, over_trial, provenance, read_study, run_study, run_trials
from mobivid_core.train.precision import whole_training
from mobivid_core.train.speed import compile_blocks

#: Trial -> (settings that change, how its discriminator is built from the teacher, synthetic share).
Trial = tuple[dict, Callable[..., TeacherDiscriminator], float]
RECORDS = {name: f"distill_{name}" for name in ("heads", "share")}
#: Noise levels at which a pair is judged; the clip with the higher mean logit is called real.
LEVELS = (0.2, 0.4, 0.6, 0.8)
#: Index of the first test caption of the record: nothing else draws captions from here on.
FRESH_START = 8_000_000
#: Trials that claims and questions are about.
SCRATCH, MIXED = "network with random weights", "50% synthetic"
ALONE = ("0% synthetic", "100% synthetic")
REAL, TEACHERS, BOTH = "told from real clips", "told from the teacher's", "pairs told apart"


def _untrained(teacher: nn.Module) -> nn.Module:
    """The teacher's architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fresh = MobiVidTransformer3DModel.from_sizes(teacher.sizes)
    return fresh.to(next(teacher.parameters()).device).eval().requires_grad_(False)


def trials(name: str, blocks: int) -> dict[str, Trial]:
    """The trials of the study "heads" or "share" with a teacher of so many blocks."""
    plain, depths, last = TeacherDiscriminator, default_depths(blocks), blocks - 1
    if name == "share":
        return {f"{share:.0%} synthetic": ({}, plain, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    return {
        f"teacher features, blocks {', '.join(map(str, depths))}": ({}, plain, 0.5),
        SCRATCH: ({}, lambda teacher: plain(_untrained(teacher)), 0.5),
        "one early block": ({}, partial(plain, depths=(depths[0],)), 0.5),
        "one late block": ({}, partial(plain, depths=(last,)), 0.5),
        "spatial heads": ({}, partial(plain, kind="spatial"), 0.5),
        "low noise levels only": ({"renoise_high": 0.4}, plain, 0.5),
        "hinge loss": ({"loss": "hinge"}, plain, 0.5),
    }


def train_heads(contest: Contest, student: nn.Module) -> None:
    """Train the contest's heads alone against a student that stands still, `settings.steps` updates."""
    s, heads = contest.settings, contest.heads
    optimizer = torch.optim.AdamW(heads.parameters(), s.discriminator_rate, (0.0, 0.99), weight_decay=0.0)
    for step in range(s.steps):
        loss = contest.heads_terms(student, *contest.draw(step_generator(s.seed, step)))["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(heads.parameters(), s.clip_norm)
        optimizer.step()


@dataclass(frozen=True)
class Pairs:
    """Held-out clips of the same captions, as latents (N, C, t, h, w) each."""

    real: Tensor
    teachers: Tensor  # samples of the guided teacher
    students: Tensor  # samples of the student from the teacher's noises
    text: Tensor  # (N, L, D)
    mask: Tensor  # (N, L)

    @classmethod
    @torch.no_grad()
    def of(cls, student: nn.Module, held_out: LatentDataset, walked: Trajectories, batch: int = 64) -> Pairs:
        """Real clips, the ends of the teacher's trajectories, and the student's samples from their noises."""
        condition, noise = walked.condition, walked.states[:, 0]
        rows = torch.arange(len(walked)).split(batch)
        students = torch.cat([unroll(student, condition.take(part), noise[part]) for part in rows])
        real, _, _ = held_out.batch(torch.arange(len(walked)))
        return cls(real, walked.endpoints, students, condition.text, condition.mask)

    @torch.no_grad()
    def told_apart(self, heads: TeacherDiscriminator, seed: int, batch: int = 64) -> dict[str, float]:
        """Shares of pairs in which the student's clip has the lower logit: beside real clips, the teacher's, both.

        Both clips of a pair are re-noised with the same noise, at each of `LEVELS`.
        """
        right: dict[str, list[Tensor]] = {REAL: [], TEACHERS: []}
        for number, rows in enumerate(torch.arange(len(self.text)).split(batch)):
            noise = normal(self.real[rows].shape, step_generator(seed, 1, number), self.real.device)
            real, teachers, students = (
                self._logit(heads, kind[rows], noise, rows) for kind in (self.real, self.teachers, self.students)
            )
            right[REAL].append(real > students)
            right[TEACHERS].append(teachers > students)
        found = {name: float(torch.cat(parts).float().mean()) for name, parts in right.items()}
        return found | {BOTH: sum(found.values()) / 2}

    def _logit(self, heads: TeacherDiscriminator, clips: Tensor, noise: Tensor, rows: Tensor) -> Tensor:
        """(B,) mean logits over heads, tokens and noise levels."""
        sigmas = [torch.full((len(clips),), level, device=clips.device) for level in LEVELS]
        caption = self.text[rows], self.mask[rows]
        return sum(heads(interpolate(clips, noise, s), s, *caption).mean(dim=1) for s in sigmas)


def run_trial(
    student: nn.Module, teacher: nn.Module, pool: RealPool, pairs: Pairs, settings: DistillSettings, trial: Trial
) -> dict[str, float]:
    """Train the heads of one trial and judge them: what `Pairs.told_apart` gives."""
    changes, build, share = trial
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        heads = build(teacher).to(pool.trajectories.device)
    train_heads(Contest(heads, replace(pool, synthetic_share=share), replace(settings, **changes)), student)
    return pairs.told_apart(heads.eval(), settings.seed)


def load_study(name: str, teacher: str, folder: Path | None = None) -> tuple[pd.DataFrame, str]:
    """The recorded study "heads" or "share" and one sentence on where it comes from.

    `teacher` is `teacher_hash` of this run; `folder` None means the project's records.
    """
    rows, facts = read_study(RECORDS[name], name, (REAL, TEACHERS, BOTH), folder)
    made = f": {facts['updates']} updates against the student that shipped then, {facts['seeds']} seed(s)"
    unseen = " that no choice had seen" if facts.get("judged from index") == FRESH_START else ""
    return rows, provenance(facts, f"{made}, {facts['clips']} test captions{unseen}", teacher)


def gain_over(rows: pd.DataFrame, ours: str, other: str) -> Interval:
    """Pairs told apart by one trial less those by another, as `over_trial`."""
    return over_trial(rows, BOTH, ours, other, minus=True)


def mixed_over_either(rows: pd.DataFrame) -> Interval:
    """Gain of half real, half synthetic over the better of the two alone."""
    means = rows.groupby("trial")[BOTH].mean()
    return gain_over(rows, MIXED, max(ALONE, key=lambda name: means[name]))


def study_table(rows: pd.DataFrame, source: str, name: str) -> TableResult:
    """What `load_study` gave for the study `name` as a table with its finding."""
    table = rows.groupby("trial", sort=False)[[REAL, TEACHERS, BOTH]].mean().reset_index()
    first = table["trial"].iloc[0]
    table = beside_trial(table, rows, BOTH, first, minus=True)
    clear = table.loc[(table["high"] < 0) | (table["low"] > 0), "trial"]
    return TableResult(
        table,
        f"Held-out pairs told apart after equal training, from {table[BOTH].min():.0%} to {table[BOTH].max():.0%} "
        f"(chance: 50%); {len(clear)} of {len(table) - 1} trials differ from '{first}' beyond chance over seeds. "
        f"{source}",
        "recorded",
        "Table 5, R1.4" if name == "heads" else "R4.4",
    )


def _work(options: Namespace) -> tuple[pd.DataFrame, dict]:
    bench = Bench(options, compiled=True)
    compile_blocks(bench.start)
    held_out = bench.latents("test", options.clips, FRESH_START)
    pairs = Pairs.of(bench.start, held_out, bench.walked(held_out))
    pool = RealPool(bench.data, bench.trajectories)

    def made(title: str, trial: Trial, seed: int) -> tuple[str, Callable[[], dict]]:
        settings = replace(bench.recipe.adversarial, steps=options.updates, seed=seed)

        def row() -> dict:
            with whole_training(bench.start.device, bench.bf16):
                found = run_trial(bench.start, bench.teacher, pool, pairs, settings, trial)
            return {"trial": title, "seed": seed} | found

        return bench.key(title, settings, LEVELS, FRESH_START), row

    every = trials(options.study, bench.teacher.sizes.blocks).items()
    asked = (made(title, trial, seed) for title, trial in every for seed in range(options.seeds))
    rows = run_trials(asked, bench.folder / "study", options.study)
    return rows, {"bf16": bench.bf16, "judged from index": FRESH_START}


DEFAULTS = {"start": "student", "updates": 150, "clips": 256, "trajectories": 2048, "seeds": 3}
main = partial(run_study, RECORDS, __doc__, _work, DEFAULTS)
