"""The executor's operations against torch, its shape checks, and the operation it blames."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobivid_core.coreml.mil import Operation, Program, Slot, execute, relative_error
from mobivid_core.coreml.mil_ops import OPERATIONS, slice_by_index
from mobivid_core.errors import ExportError

X = Slot("x", (2, 3), "fp16")


def _chain(*kinds: str, shape: tuple[int, ...] = (2, 3)) -> Program:
    """x through unary operations."""
    operations, source = [], "x"
    for i, kind in enumerate(kinds):
        operations.append(Operation(kind, {"x": source}, [Slot(f"v{i}", shape, "fp16")]))
        source = f"v{i}"
    return Program([X], {}, operations, [source])


def test_modes_differ_by_rounding_alone() -> None:
    x = torch.randn(2, 3)
    exact = execute(_chain("tanh", "exp"), {"x": x}, "fp32")["v1"]
    rounded = execute(_chain("tanh", "exp"), {"x": x}, "fp16")["v1"]
    torch.testing.assert_close(exact, x.tanh().exp())
    assert 0 < relative_error(rounded, exact) < 2e-3  # three roundings of 2^-11 each
    assert torch.equal(rounded, x.half().float().tanh().half().float().exp().half().float())


def test_first_non_finite_operation_is_named() -> None:
    with pytest.raises(ExportError, match=r"fp16 mode; the first non-finite operation is exp \(v1\)"):
        execute(_chain("square", "exp", "identity"), {"x": torch.full((2, 3), 5.0)}, "fp16")


def test_infinity_that_does_not_reach_the_output_is_allowed() -> None:
    out = execute(_chain("exp", "tanh"), {"x": torch.full((2, 3), 20.0)}, "fp16")["v1"]
    assert torch.equal(out, torch.ones(2, 3))


def test_shape_and_input_errors() -> None:
    with pytest.raises(ExportError, match=r"made shape \(2, 3\); the package declares \(2, 4\)"):
        execute(_chain("tanh", shape=(2, 4)), {"x": torch.zeros(2, 3)})
    with pytest.raises(ExportError, match="'x' is missing"):
        execute(_chain("tanh"), {})
    with pytest.raises(ExportError, match=r"has shape \(3, 2\)"):
        execute(_chain("tanh"), {"x": torch.zeros(3, 2)})
    with pytest.raises(ExportError, match="no operation topk"):
        execute(_chain("topk"), {"x": torch.zeros(2, 3)})
    with pytest.raises(ExportError, match="unknown mode"):
        execute(_chain("tanh"), {"x": torch.zeros(2, 3)}, "int8")


def test_weights_are_widened_and_text_constants_read() -> None:
    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    constants = {"w": weight, "m": np.asarray("TANH_APPROXIMATION")}
    operations = [
        Operation("linear", {"x": "x", "weight": "w"}, [Slot("y", (2, 2), "fp16")]),
        Operation("gelu", {"x": "y", "mode": "m"}, [Slot("z", (2, 2), "fp16")]),
    ]
    x = torch.randn(2, 3)
    out = execute(Program([X], constants, operations, ["z"]), {"x": x})["z"]
    torch.testing.assert_close(out, F.gelu(x @ torch.from_numpy(weight).float().T, approximate="tanh"))


@pytest.mark.parametrize("mask", [None, torch.tensor([True, True, False, True]), torch.tensor([0.0, -1e4, 0.5, 0.0])])
def test_attention_equals_torch(mask: torch.Tensor | None) -> None:
    q, k, v = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)
    ours = OPERATIONS["scaled_dot_product_attention"](query=q, key=k, value=v, attn_mask=mask)
    torch.testing.assert_close(
        ours, F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[None])
    )


def test_layer_norm_and_convolution_equal_torch() -> None:
    x, g, b = torch.randn(2, 5, 6), torch.randn(6), torch.randn(6)
    ours = OPERATIONS["layer_norm"](x=x, axes=[-1], gamma=g, beta=b, epsilon=1e-6)
    torch.testing.assert_close(ours, F.layer_norm(x, (6,), g, b, 1e-6))
    image, weight = torch.randn(1, 2, 5, 6), torch.randn(3, 2, 3, 3)
    ours = OPERATIONS["conv"](x=image, weight=weight, strides=[2, 1], pad_type="custom", pad=[1, 1, 0, 2])
    torch.testing.assert_close(ours, F.conv2d(F.pad(image, (0, 2, 1, 1)), weight, stride=(2, 1)))


def test_slices() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(slice_by_index(x, [0, 1, 0], [2, 3, 4], [1, 1, 2]), x[:, 1:3, ::2])
    assert torch.equal(slice_by_index(x, [0, -1, 0], [0, 0, 0], None, [1, 0, 1], [1, 0, 1], [0, 1, 0]), x[:, -1])
    assert torch.equal(slice_by_index(x, [0, 0, 3], [0, 0, 0], [1, 1, -1], [1, 1, 0], [1, 1, 1]), x.flip(-1))


def test_shape_operations_invert_each_other() -> None:
    x = torch.randn(2, 6, 4)
    parts = OPERATIONS["split"](x=x, axis=1, split_sizes=[1, 2, 3])
    assert torch.equal(OPERATIONS["concat"](values=parts, axis=1), x)
    assert torch.equal(OPERATIONS["squeeze"](x=OPERATIONS["expand_dims"](x=x, axes=[0, -1]), axes=[0, -1]), x)
    assert torch.equal(OPERATIONS["reshape"](x=x, shape=[0, -1, 2]), x.reshape(2, -1, 2))
    image = torch.randn(1, 2, 4, 4)
    small = OPERATIONS["pixel_unshuffle"](x=image, downscale_factor=2)
    assert torch.equal(OPERATIONS["pixel_shuffle"](x=small, upscale_factor=2), image)
    rows = OPERATIONS["gather"](x=x, indices=torch.tensor([[0, -1]]), axis=1)
    assert torch.equal(rows, x[:, [[0, -1]]])
