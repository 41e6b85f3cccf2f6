"""Prices against the module itself and against torch's FLOP counter."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mobivid_core.models.config import MINI_SERVER, MOBILE, SERVER, DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.costs import flop_cost, parameter_cost

UNEVEN = DiTConfig(24, 6, (4, 0, 3), (1, 4, 0), (32, 5, 0), in_channels=4, text_dim=10)


def test_parameters_equal_the_module_for_uneven_and_empty_layers() -> None:
    for sizes in (UNEVEN, MINI_SERVER):
        with torch.device("meta"):
            model = MobiVidTransformer3DModel.from_sizes(sizes)
        assert parameter_cost(sizes).total(sizes) == sum(p.numel() for p in model.parameters())


def test_paper_scale_counts() -> None:
    assert parameter_cost(SERVER).total(SERVER) == 1_916_569_728  # ../shared/paper: class derived
    assert parameter_cost(MOBILE).total(MOBILE) == 959_697_024


def test_flops_equal_torchs_counter_with_math_attention() -> None:
    sizes, tokens, text = DiTConfig(24, 6, (4, 2), (3, 4), (32, 8), in_channels=4, text_dim=10), 12, 5
    with torch.device("meta"):
        model = MobiVidTransformer3DModel.from_sizes(sizes)
        inputs = (
            torch.zeros(2, 4, 3, 2, 2),
            torch.zeros(2),
            torch.zeros(2, text, 10),
            torch.ones(2, text, dtype=torch.bool),
        )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*inputs)
    assert 2 * flop_cost(sizes, tokens, text).total(sizes) == counter.get_total_flops()


def test_paper_scale_flops_match_the_reconstruction() -> None:
    # reconstruction.md: 4.896 and 2.413 TFLOP at 1,344 latent and 77 text tokens, rounded there to the third decimal
    assert abs(flop_cost(SERVER, 1344, 77).total(SERVER) / 1e12 - 4.896) < 2e-3
    assert abs(flop_cost(MOBILE, 1344, 77).total(MOBILE) / 1e12 - 2.413) < 2e-3
