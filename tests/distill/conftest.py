"""A teacher of a few thousand parameters, random latents and captions: every test here runs in a second or so."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mobivid_core.distill.trajectory import Trajectories, collect_trajectories, condition_of
from mobivid_core.flow.condition import Condition
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel

SHAPE = (4, 2, 2, 2)
TEXT = 8


@dataclass
class TinyDataset:
    """What distillation needs of a LatentDataset."""

    latents: Tensor
    text: Tensor
    mask: Tensor
    null_text: Tensor
    null_mask: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.latents[indices].float(), self.text[indices], self.mask[indices]


def make_model(seed: int = 0, blocks: int = 3) -> MobiVidTransformer3DModel:
    """A tiny DiT whose zero-initialised layers are filled, so that its velocity is not zero."""
    torch.manual_seed(seed)
    sizes = DiTConfig.uniform(
        blocks=blocks, heads=2, ffn=32, hidden=16, head_dim=8, in_channels=SHAPE[0], text_dim=TEXT
    )
    model = MobiVidTransformer3DModel.from_sizes(sizes)
    for parameter in model.parameters():
        if parameter.ndim == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture()
def teacher() -> MobiVidTransformer3DModel:
    return make_model().requires_grad_(False)


@pytest.fixture()
def student() -> MobiVidTransformer3DModel:
    return make_model(seed=1, blocks=2)


@pytest.fixture()
def dataset() -> TinyDataset:
    g = torch.Generator().manual_seed(3)
    mask = torch.ones(24, 5, dtype=torch.bool)
    mask[:, 4] = False
    return TinyDataset(
        torch.randn(24, *SHAPE, generator=g),
        torch.randn(24, 5, TEXT, generator=g),
        mask,
        torch.randn(1, 5, TEXT, generator=g),
        torch.ones(1, 5, dtype=torch.bool),
    )


@pytest.fixture()
def condition(dataset: TinyDataset) -> Condition:
    return condition_of(dataset, torch.arange(12))


@pytest.fixture()
def trajectories(teacher: MobiVidTransformer3DModel, condition: Condition) -> Trajectories:
    return collect_trajectories(teacher, condition, SHAPE, steps=8, guidance=2.0, seed=5)
