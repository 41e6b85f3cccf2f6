"""The libraries' criteria, checked against their definitions unit by unit."""

import copy

import numpy as np
import pytest
import torch

from mobivid_core.sensitivity.attention_span import _weights, other_frame_attention
from mobivid_core.sensitivity.kd import forward
from mobivid_core.studies.criteria import activation_scores, weight_hessian_scores, weight_taylor_scores


@pytest.fixture
def teacher(teacher):
    """A copy: these tests change gradients and flags."""
    return copy.deepcopy(teacher)


def _gradient(teacher, batch):
    teacher.zero_grad()
    teacher.requires_grad_(True)
    (forward(teacher, batch)[0] - batch.velocity).square().flatten(1).mean(1).sum().backward()


def test_weight_taylor_is_the_sum_of_weight_times_gradient(teacher, calibration):
    few = calibration.first(6)
    found = weight_taylor_scores(teacher, few)
    found.check(teacher.sizes)
    _gradient(teacher, few)
    ffn = teacher.blocks[1].ffn
    up, down = ((layer.weight * layer.weight.grad).abs() for layer in (ffn.up, ffn.down))
    assert found.ffn[1][3] == pytest.approx(float(up[3].sum() + down[:, 3].sum()), rel=1e-4)
    attention, d = teacher.blocks[0].attn2, teacher.config.head_dim
    head = slice(2 * d, 3 * d)
    rows = sum((w.weight * w.weight.grad).abs()[head].sum() for w in (attention.to_q, attention.to_k, attention.to_v))
    columns = (attention.to_out.weight * attention.to_out.weight.grad).abs()[:, head].sum()
    assert found.cross_heads[0][2] == pytest.approx(float(rows + columns), rel=1e-4)
    units = (found.self_heads[2], found.cross_heads[2], found.ffn[2])
    assert found.blocks[2] == pytest.approx(sum(map(np.sum, units)))


def test_weight_hessian_squares_each_samples_gradient(teacher, calibration):
    found = weight_hessian_scores(teacher, calibration, samples=2)
    expected = 0.0
    for i in range(2):
        _gradient(teacher, calibration.take(slice(i, i + 1)))
        ffn = teacher.blocks[3].ffn
        expected += float((ffn.up.weight * ffn.up.weight.grad).square()[5].sum())
        expected += float((ffn.down.weight * ffn.down.weight.grad).square()[:, 5].sum())
    assert found.ffn[3][5] == pytest.approx(expected, rel=1e-4)


def test_requires_grad_is_left_as_it_was(teacher, calibration):
    teacher.requires_grad_(False)
    weight_taylor_scores(teacher, calibration.first(2))
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_silenced_neuron_has_no_activation(teacher, calibration):
    silenced = copy.deepcopy(teacher).requires_grad_(False)
    silenced.blocks[0].ffn.up.weight[7] = 0
    silenced.blocks[0].ffn.up.bias[7] = 0  # GELU(0) = 0
    found = activation_scores(silenced, calibration.first(8))
    found.check(teacher.sizes)
    assert found.ffn[0][7] == 0 and (np.delete(found.ffn[0], 7) > 0).all()


@torch.no_grad()
def test_attention_weights_are_those_of_the_forward_pass(teacher, calibration):
    batch = calibration.first(3)
    x, context = teacher.enter(*batch.inputs)
    block = teacher.blocks[0]
    weights = _weights(block, x, context.modulation, context.table)
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    shift, scale = (block.scale_shift_table + context.modulation)[:, :2, None].unbind(1)
    normed = torch.nn.functional.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    value = block.attn1.to_v(normed).unflatten(-1, (block.attn1.heads, -1)).transpose(1, 2)
    ours = block.attn1.to_out((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, block.attn1(normed, table=context.table), atol=1e-4, rtol=1e-4)


def test_indifferent_heads_leave_their_frame_by_its_share(teacher, calibration):
    flat = copy.deepcopy(teacher).requires_grad_(False)
    for block in flat.blocks:
        block.attn1.norm_q.weight.zero_()  # all scores 0: attention is uniform
    span = other_frame_attention(flat, calibration.first(5))
    assert [len(s) for s in span] == list(teacher.sizes.self_heads)
    np.testing.assert_allclose(np.concatenate(span), 0.5, atol=1e-6)  # two latent frames
