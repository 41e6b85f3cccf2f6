"""Gates: closing one must equal cutting the unit out by hand, and per-sample gates must give per-sample gradients."""

import pytest
import torch
from torch import nn

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import Gates, MobiVidTransformer3DModel

FULL = DiTConfig(24, 8, (3, 2), (2, 3), (10, 12), in_channels=5, text_dim=12)
#: float32: removing terms that are exactly zero changes only the order of summation.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def _model(sizes=FULL):
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(sizes).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def _inputs():
    g = torch.Generator().manual_seed(1)
    x, text = torch.randn(3, 5, 2, 2, 2, generator=g), torch.randn(3, 4, 12, generator=g)
    return x, torch.tensor([900.0, 500.0, 20.0]), text, torch.ones(3, 4, dtype=torch.bool)


def _smaller(model, sizes, rows):
    """A model of `sizes` filled from `model`; `rows` maps a parameter's name to (axis, kept indices)."""
    small = MobiVidTransformer3DModel.from_sizes(sizes).eval()
    state = model.state_dict()
    for name, (axis, kept) in rows.items():
        state[name] = state[name].index_select(axis, torch.tensor(kept, dtype=torch.long))
    small.load_state_dict(state)
    return small


def _channels(heads):
    return [head * 8 + i for head in heads for i in range(8)]


def _head_rows(layer, heads):
    rows = {f"{layer}.to_{p}.{part}": (0, _channels(heads)) for p in "qkv" for part in ("weight", "bias")}
    return (
        rows
        | {f"{layer}.norm_{p}.weight": (0, heads) for p in "qk"}
        | {f"{layer}.to_out.weight": (1, _channels(heads))}
    )


@pytest.mark.parametrize("kept", [[0, 2], [1], []])
def test_a_closed_self_head_is_a_deleted_one(kept):
    model, gates = _model(), Gates.ones(FULL)
    gates.self_heads[0] = torch.tensor([float(i in kept) for i in range(3)])
    sizes = DiTConfig(24, 8, (len(kept), 2), FULL.cross_heads, FULL.ffn_widths, in_channels=5, text_dim=12)
    pruned = _smaller(model, sizes, _head_rows("blocks.0.attn1", kept))
    torch.testing.assert_close(model(*_inputs(), gates=gates).sample, pruned(*_inputs()).sample, **TOLERANCE)


@pytest.mark.parametrize("kept", [[1, 2], []])
def test_a_closed_cross_head_is_a_deleted_one(kept):
    model, gates = _model(), Gates.ones(FULL)
    gates.cross_heads[1] = torch.tensor([float(i in kept) for i in range(3)])
    sizes = DiTConfig(24, 8, FULL.self_heads, (2, len(kept)), FULL.ffn_widths, in_channels=5, text_dim=12)
    pruned = _smaller(model, sizes, _head_rows("blocks.1.attn2", kept))
    torch.testing.assert_close(model(*_inputs(), gates=gates).sample, pruned(*_inputs()).sample, **TOLERANCE)


@pytest.mark.parametrize("kept", [[0, 3, 9], []])
def test_a_closed_neuron_is_a_deleted_one(kept):
    model, gates = _model(), Gates.ones(FULL)
    gates.ffn[0] = torch.tensor([float(i in kept) for i in range(10)])
    sizes = DiTConfig(24, 8, FULL.self_heads, FULL.cross_heads, (len(kept), 12), in_channels=5, text_dim=12)
    rows = {
        "blocks.0.ffn.up.weight": (0, kept),
        "blocks.0.ffn.up.bias": (0, kept),
        "blocks.0.ffn.down.weight": (1, kept),
    }
    pruned = _smaller(model, sizes, rows)
    torch.testing.assert_close(model(*_inputs(), gates=gates).sample, pruned(*_inputs()).sample, **TOLERANCE)


@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_block_is_a_deleted_one(closed):
    model, gates = _model(), Gates.ones(FULL)
    gates.blocks[closed] = 0
    masked = model(*_inputs(), gates=gates).sample
    del model.blocks[closed]
    torch.testing.assert_close(masked, model(*_inputs()).sample, **TOLERANCE)


@pytest.mark.parametrize("batch", [None, 3])
def test_open_gates_change_nothing(batch):
    model = _model()
    got = model(*_inputs(), gates=Gates.ones(FULL, batch)).sample
    torch.testing.assert_close(got, model(*_inputs()).sample, **TOLERANCE)


def _gradients(gates):
    return [gate.grad for gate in gates.tensors()]


def test_one_backward_gives_each_sample_s_own_gradients():
    """Gates of shape (B, units) against one shared gate and one backward pass a sample."""
    model, arguments = _model(), _inputs()
    together = Gates.ones(FULL, 3).requires_grad_()
    model(*arguments, gates=together).sample.square().sum().backward()
    for i in range(3):
        own = Gates.ones(FULL).requires_grad_()
        model(*(a[i : i + 1] for a in arguments), gates=own).sample.square().sum().backward()
        for all_gradients, expected in zip(_gradients(together), _gradients(own), strict=True):
            torch.testing.assert_close(all_gradients[i], expected, atol=1e-3, rtol=1e-4)  # gradients of order 10 to 100


def _double(gates):
    """A copy in double precision."""
    self_heads, cross_heads, ffn = ([g.detach().double().clone() for g in part]
                                    for part in (gates.self_heads, gates.cross_heads, gates.ffn))  # fmt: skip
    return Gates(self_heads, cross_heads, ffn, gates.blocks.detach().double().clone())


def test_gate_gradients_agree_with_finite_differences():
    model, arguments, gates = _model().double(), _inputs(), _double(Gates.ones(FULL)).requires_grad_()
    arguments = (arguments[0].double(), arguments[1], arguments[2].double(), arguments[3])

    def value(closing):
        return model(*arguments, gates=closing).sample.square().mean()

    value(gates).backward()
    for k, (gate, gradient) in enumerate(zip(gates.tensors(), _gradients(gates), strict=True)):
        step, outcome = 1e-5, []
        for sign in (1, -1):
            moved = _double(gates)
            moved.tensors()[k][0] += sign * step
            outcome.append(value(moved).item())
        slope = (outcome[0] - outcome[1]) / (2 * step)
        assert gate.shape == gradient.shape and slope == pytest.approx(gradient[0].item(), rel=1e-5, abs=1e-8)


def test_shapes_follow_the_sizes():
    gates = Gates.ones(FULL, 4)
    assert [tuple(g.shape) for g in gates.tensors()] == [(4, 3), (4, 2), (4, 2), (4, 3), (4, 10), (4, 12), (4, 2)]
