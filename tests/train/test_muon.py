"""Muon: orthogonal updates, alike for one matrix and for many, and for kernels as for matrices."""

import pytest
import torch
from torch import nn

from mobivid_core.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16), (3, 16, 48)])
def test_orthogonalised_singular_values_are_about_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    # the quintic iteration stops between 0.7 and 1.2 (its source); bfloat16 and small singular values widen that
    assert values.min() > 0.4
    assert values.max() < 1.35


def test_orthogonalising_keeps_the_singular_vectors():
    left, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    spread = torch.diag(torch.linspace(1, 2, 8))
    assert (left.T @ orthogonalise(left @ spread)).diagonal().min() > 0.6
    off = left.T @ orthogonalise(left @ spread)
    assert (off - torch.diag(off.diagonal())).abs().max() < 0.05  # bfloat16


def test_update_has_the_size_of_adamw_whatever_the_gradient():
    sizes = []
    for scale in (1e-4, 1e3):
        weight = nn.Parameter(torch.zeros(32, 8, 3, 3))
        optimiser = Muon([weight], lr=1.0)
        weight.grad = scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
        optimiser.step()
        sizes.append(weight.detach().square().mean().sqrt().item())
    assert sizes == pytest.approx([0.2, 0.2], rel=0.3)  # singular values of 0.7 to 1.2
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)  # bfloat16


def test_parameters_without_a_gradient_stay():
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([weight], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(weight, torch.ones(4, 4))
