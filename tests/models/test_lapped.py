"""The fold across token borders: orthogonal, exactly inverted, in space only, nothing at the frame's edges."""

import math

import pytest
import torch

from mobivid_core.models.vae_linear import Lap


@pytest.mark.parametrize(("height", "width", "patch"), [(64, 96, 32), (32, 32, 32), (8, 40, 8), (48, 16, 16)])
def test_fold_is_orthogonal_and_its_inverse_is_its_adjoint(height, width, patch):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 3, height, width, generator=g)
    lap = Lap(patch)
    torch.testing.assert_close(lap.inverse(lap(a)), a, rtol=0, atol=2e-6)  # float32 rotations of values up to 4
    torch.testing.assert_close(lap(lap.inverse(a)), a, rtol=0, atol=2e-6)
    torch.testing.assert_close(lap(a).norm(), a.norm(), rtol=1e-6, atol=0)
    torch.testing.assert_close((lap(a) * b).sum(), (a * lap.inverse(b)).sum(), rtol=1e-4, atol=1e-3)


def test_each_pair_is_rotated_by_its_angle():
    """Against a loop over borders and pairs, written from the formula."""
    frames, patch, half = torch.randn(1, 1, 8, 24, generator=torch.Generator().manual_seed(0)), 8, 4
    expected = frames.clone()
    for border in (8, 16):
        for i in range(half):
            angle = math.pi / 4 * (1 - (i + 0.5) / half)
            left, right = frames[..., border - 1 - i], frames[..., border + i]
            expected[..., border - 1 - i] = math.cos(angle) * left + math.sin(angle) * right
            expected[..., border + i] = math.cos(angle) * right - math.sin(angle) * left
    torch.testing.assert_close(Lap(patch)(frames), expected)


def test_frame_edges_and_other_frames_stay():
    frames = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    folded = Lap(32)(frames)
    assert torch.equal(folded[..., :16, :16], frames[..., :16, :16])
    other = frames.clone()
    other[1] += 1
    assert torch.equal(Lap(32)(other)[[0, 2]], folded[[0, 2]])
    assert torch.equal(Lap(32)(frames[..., :32, :32]), frames[..., :32, :32])
