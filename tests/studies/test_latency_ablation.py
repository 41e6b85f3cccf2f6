"""Predicted seconds as a budget, and what a recovery learns from."""

import copy
from dataclasses import dataclass, field

import pytest
import torch

from mobivid_core.models.config import MINI_SERVER, MOBILE, SERVER
from mobivid_core.models.counts import latent_grid
from mobivid_core.phone.devices import find_device
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.latency import latency_cost
from mobivid_core.phone.roofline import clip_seconds, clip_stages
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.recovery import RecoverySettings
from mobivid_core.sensitivity.calibration import calibration_set
from mobivid_core.sensitivity.kd import reference
from mobivid_core.studies.ablation import VARIANTS, both, recovery_ablation, teacher_samples

GRID = latent_grid(49, 384, 512)


def test_latency_prices_add_up_to_the_roofline():
    phone = find_device("A18 Pro")

    def seconds(config):
        return clip_seconds(clip_stages(config, GRID, steps=1), phone, fit_efficiency().typical)

    cost = latency_cost(SERVER, phone, GRID)
    assert cost.total(SERVER) == pytest.approx(seconds(SERVER), rel=1e-6)
    assert cost.total(MOBILE) == pytest.approx(seconds(MOBILE), rel=0.05)  # linear, where the roofline has a knee
    assert latency_cost(MINI_SERVER, phone, GRID).total(MINI_SERVER) == pytest.approx(seconds(SERVER), rel=1e-6)


@dataclass
class Clips:
    """What the ablation needs of a LatentDataset."""

    latents: torch.Tensor
    text: torch.Tensor
    mask: torch.Tensor
    null_text: torch.Tensor
    null_mask: torch.Tensor
    caption_of: torch.Tensor
    labels: list = field(default_factory=list)

    def __len__(self):
        return len(self.latents)

    def batch(self, indices, generator=None):
        rows = self.caption_of[indices, 0]
        return self.latents[indices].float(), self.text[rows].float(), self.mask[rows]

    def draw(self, size, generator):
        return self.batch(torch.randint(len(self), (size,), generator=generator), generator)


def test_every_variant_recovers_and_samples_are_the_teachers(teacher):
    teacher = copy.deepcopy(teacher)
    torch.manual_seed(0)
    n = 8
    data = Clips(
        torch.randn(n, 4, 2, 2, 2),
        torch.randn(n, 5, 10),
        torch.ones(n, 5, dtype=torch.bool),
        torch.zeros(1, 5, 10),
        torch.ones(1, 5, dtype=torch.bool),
        torch.arange(n)[:, None],
        list(range(n)),
    )
    teacher.requires_grad_(False)
    made = teacher_samples(teacher, data, 4, guidance=2.0, steps=4)
    assert len(made) == 4 and torch.isfinite(made.latents).all() and not torch.equal(made.latents, data.latents[:4])
    again = teacher_samples(teacher, data, 4, guidance=2.0, steps=4)
    assert torch.equal(made.latents, again.latents)
    assert both(data, made).labels == [0, 1, 2, 3, 0, 1, 2, 3]
    plan = PruningPlan.keep_all(teacher.sizes)
    held = reference(teacher, calibration_set(data.latents, data.text, data.mask))
    student = type(teacher)(**teacher.config)
    table = recovery_ablation(student, plan, teacher, made, data, held, RecoverySettings(2, batch=2))
    assert list(table["recovery"]) == list(VARIANTS) and table["KD recovered"].notna().all()
    assert table["KD recovered"].nunique() > 3  # the variants do differ
