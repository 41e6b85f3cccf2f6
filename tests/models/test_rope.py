"""Rotary positions against the rotation they stand for."""

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.models.rope import axis_pairs, rotary_table, rotate

GRID = (2, 3, 4)


def _tokens(head_dim=16, seed=0):
    return torch.randn(2 * 3 * 4, head_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("head_dim, expected", [(64, (10, 11, 11)), (16, (2, 3, 3)), (8, (2, 1, 1)), (6, (1, 1, 1))])
def test_every_pair_belongs_to_one_axis(head_dim, expected):
    assert axis_pairs(head_dim) == expected and 2 * sum(expected) == head_dim


@pytest.mark.parametrize("head_dim", [4, 7])
def test_heads_too_narrow_are_refused(head_dim):
    with pytest.raises(ParameterError, match="head_dim"):
        axis_pairs(head_dim)


def test_angles_are_position_times_frequency():
    cos, sin = rotary_table(GRID, 16, theta=100.0)
    t, h, w = 1, 2, 3
    row = (t * 3 + h) * 4 + w
    frequencies = {2: [1.0, 0.1], 3: [1.0, 100 ** (-1 / 3), 100 ** (-2 / 3)]}
    angles = torch.tensor([t * f for f in frequencies[2]] + [p * f for p in (h, w) for f in frequencies[3]])
    torch.testing.assert_close(cos[row], angles.cos())
    torch.testing.assert_close(sin[row], angles.sin())


def test_rotation_is_complex_multiplication():
    x, (cos, sin) = _tokens(), rotary_table(GRID, 16)
    turned = torch.complex(*x.chunk(2, -1)) * torch.complex(cos.double(), sin.double())
    torch.testing.assert_close(rotate(x, (cos, sin)), torch.cat([turned.real, turned.imag], -1))


def test_scores_depend_on_the_offset_alone():
    """One query and one key vector at every place: equal offsets in t, h, w give equal scores."""
    q, k = _tokens(seed=1)[:1].expand(24, -1), _tokens(seed=2)[:1].expand(24, -1)
    table = rotary_table(GRID, 16)
    scores = (rotate(q, table) @ rotate(k, table).T).reshape(*GRID, *GRID)
    # float32 table: round-off of about 1e-7 a channel.
    torch.testing.assert_close(scores[0, 0, 0, 1, 1, 2], scores[0, 1, 1, 1, 2, 3], atol=1e-5, rtol=0)
    torch.testing.assert_close(scores[1, 2, 3, 0, 0, 1], scores[1, 2, 2, 0, 0, 0], atol=1e-5, rtol=0)
    assert (scores[0, 0, 0, 1, 1, 2] - scores[0, 0, 0, 1, 2, 1]).abs() > 1e-3


def test_rotation_keeps_lengths_and_the_first_token():
    x = _tokens()
    turned = rotate(x, rotary_table(GRID, 16))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-6, rtol=0)
    assert torch.equal(turned[0], x[0])
