"""Ablation of recovery: output or features, real clips or the teacher's own samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import torch

from mobivid_core.data.latents import LatentDataset
from mobivid_core.distill.trajectory import condition_of, teacher_states
from mobivid_core.flow.guidance import Guidance
from mobivid_core.measure import intervals
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.recovery import RecoverySettings, TeacherBank, feature_blocks_for, recover
from mobivid_core.sensitivity.kd import FEATURE_WEIGHT, Reference, output_errors

#: Variant -> (settings that change, which clips).
VARIANTS: Mapping[str, tuple[dict, str]] = {
    "output and features": ({}, "real"),
    "output only": ({"feature_weight": 0.0}, "real"),
    "mostly features": ({"feature_weight": 100 * FEATURE_WEIGHT}, "real"),
    "output, features and the clips' own velocity": ({"data_weight": 0.3}, "real"),
    "output and features, teacher's samples": ({}, "generated"),
    "output and features, half and half": ({}, "both"),
}


def teacher_samples(
    teacher: MobiVidTransformer3DModel,
    data: LatentDataset,
    count: int,
    guidance: float | Guidance,
    steps: int = 8,
    seed: int = 0,
) -> LatentDataset:
    """The first `count` captions of a dataset with the teacher's clips in place of the real ones (UniPC)."""
    rows = torch.arange(count)
    condition = condition_of(data, rows)
    noise = torch.randn(data.latents[rows].shape, generator=torch.Generator().manual_seed(seed))
    how = {"steps": steps, "guidance": guidance}
    parts = [teacher_states(teacher, condition.take(part), noise[part], **how)[:, -1] for part in rows.split(32)]
    made = torch.cat(parts).to(data.latents.dtype)
    return replace(data, latents=made, caption_of=data.caption_of[rows], labels=data.labels[:count])


def both(real: LatentDataset, generated: LatentDataset) -> LatentDataset:
    """Real and generated clips of the same captions, one of each."""
    count = len(generated)
    return replace(
        real,
        latents=torch.cat([real.latents[:count], generated.latents]),
        caption_of=torch.cat([real.caption_of[:count], generated.caption_of]),
        labels=[*real.labels[:count], *generated.labels],
    )


def recovery_ablation(
    student: MobiVidTransformer3DModel,
    plan: PruningPlan,
    teacher: MobiVidTransformer3DModel,
    generated: LatentDataset,
    real: LatentDataset,
    held_out: Reference,
    settings: RecoverySettings,
) -> pd.DataFrame:
    """Every variant of the recovery of a cut (and refitted) student from the same start: a row each.

    `generated` is from `teacher_samples`, and the real clips of its captions come first in `real`; no variant sees
    `held_out`, whose clips the KD loss and its interval are over.
    """
    count = len(generated)
    few = replace(real, latents=real.latents[:count], caption_of=real.caption_of[:count], labels=real.labels[:count])
    pools = {"real": few, "generated": generated, "both": both(few, generated)}
    blocks = feature_blocks_for([plan])
    banks = {
        name: TeacherBank(teacher, pool, settings.batch, blocks, seed=settings.seed, keep=True)
        for name, pool in pools.items()
    }
    rows = []
    for name, (changes, clips) in VARIANTS.items():
        found, _ = recover(student, plan, banks[clips], replace(settings, **changes), progress=False)
        errors = output_errors(found, held_out).numpy()
        found_over = intervals.cells(intervals.mean(errors, seed=settings.seed))
        rows.append({"recovery": name, "clips": clips, "KD recovered": found_over.pop("value"), **found_over})
    return pd.DataFrame(rows)
