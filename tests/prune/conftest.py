"""A tiny random teacher and calibration data shared by the compression tests."""

from __future__ import annotations

import pytest
import torch

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet, calibration_set

TINY = DiTConfig(24, 6, (4, 3, 4, 4), (4, 4, 2, 4), (32, 24, 32, 32), in_channels=4, text_dim=10)


@pytest.fixture(scope="session")
def teacher() -> MobiVidTransformer3DModel:
    """Four blocks of unequal widths with random weights everywhere (the initial ones make cross-attention zero)."""
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(TINY)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "scale_shift_table" in name else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + (1 if "norm_" in name else 0))
    return model.eval()


@pytest.fixture(scope="session")
def calibration() -> CalibrationSet:
    """48 samples of 2 x 2 x 2 latents."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(48, 4, 2, 2, 2, generator=generator)
    text = torch.randn(48, 5, 10, generator=generator)
    mask = torch.arange(5)[None] < torch.randint(1, 6, (48, 1), generator=generator)
    null = (torch.zeros(1, 5, 10), torch.arange(5)[None] < 1)
    return calibration_set(latents, text, mask, seed=2, null=null)
