"""Every operation of the executor on random tensors, against numpy or another way of writing it in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special
from torch import Tensor

from mobivid_core.coreml.mil_ops import OPERATIONS
from mobivid_core.errors import ExportError

R = torch.Generator().manual_seed(0)
X, Y = torch.randn(2, 3, 4, 5, generator=R), torch.randn(2, 3, 4, 5, generator=R)
POSITIVE, LOW, HIGH = X.abs() + 0.1, torch.minimum(X, Y), torch.maximum(X, Y)
W, BIAS = torch.randn(6, 5, generator=R), torch.randn(6, generator=R)
KERNEL = torch.randn(4, 3, 2, 3, generator=R)
LEFT, RIGHT = X > 0, Y > 0
N, M = X.numpy(), Y.numpy()
INDICES = torch.tensor([2, 0, -1])


def _patches() -> np.ndarray:
    """Convolution of X with KERNEL, strides (1, 2), padding (1, 0, 0, 1), as a sum over the window."""
    padded = np.pad(N, ((0, 0), (0, 0), (1, 0), (0, 1)))
    out = np.zeros((2, 4, 4, 2), np.float32)
    for i in range(4):
        for j in range(2):
            window = padded[:, :, i : i + 2, 2 * j : 2 * j + 3]
            out[:, :, i, j] = np.einsum("bchw,kchw->bk", window, KERNEL.numpy()) + np.arange(4)
    return out


def _normalised(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


STATS = dict(mean=torch.tensor([0.1, -0.2, 0.3]), variance=torch.tensor([0.5, 1.0, 2.0]))
SHUFFLED = torch.randn(1, 8, 2, 3, generator=R)
#: operation -> [(arguments, what it should make)]
CASES: dict[str, list[tuple[dict, object]]] = {
    "add": [({"x": X, "y": Y}, N + M), ({"x": X, "y": 2.0}, N + 2)],
    "sub": [({"x": X, "y": Y}, N - M), ({"x": 1.0, "y": Y}, 1 - M)],
    "mul": [({"x": X, "y": Y}, N * M)],
    "real_div": [({"x": X, "y": POSITIVE}, N / POSITIVE.numpy())],
    "floor_div": [({"x": torch.tensor([7, -7, 9]), "y": torch.tensor([2, 2, -4])}, np.array([3, -4, -3]))],
    "maximum": [({"x": X, "y": Y}, np.where(N > M, N, M))],
    "minimum": [({"x": X, "y": Y}, np.where(N > M, M, N))],
    "pow": [({"x": POSITIVE, "y": Y}, POSITIVE.numpy() ** M)],
    "greater": [({"x": X, "y": Y}, N > M), ({"x": X, "y": X}, N > N)],
    "greater_equal": [({"x": X, "y": Y}, N >= M), ({"x": X, "y": X}, N >= N)],
    "less": [({"x": X, "y": Y}, N < M), ({"x": X, "y": X}, N < N)],
    "less_equal": [({"x": X, "y": Y}, N <= M), ({"x": X, "y": X}, N <= N)],
    "equal": [({"x": X, "y": LOW}, N == LOW.numpy())],
    "not_equal": [({"x": X, "y": LOW}, N != LOW.numpy())],
    "logical_and": [({"x": LEFT, "y": RIGHT}, (N > 0) & (M > 0))],
    "logical_or": [({"x": LEFT, "y": RIGHT}, (N > 0) | (M > 0))],
    "logical_not": [({"x": LEFT}, ~(N > 0))],
    "abs": [({"x": X}, np.abs(N))],
    "exp": [({"x": X}, np.exp(N))],
    "sqrt": [({"x": POSITIVE}, POSITIVE.numpy() ** 0.5)],
    "square": [({"x": X}, N**2)],
    "rsqrt": [({"x": POSITIVE, "epsilon": 0.5}, (POSITIVE.numpy() + 0.5) ** -0.5)],
    "inverse": [({"x": POSITIVE, "epsilon": 0.5}, 1 / (POSITIVE.numpy() + 0.5))],
    "sin": [({"x": X}, np.sin(N))],
    "cos": [({"x": X}, np.cos(N))],
    "tanh": [({"x": X}, np.tanh(N))],
    "sigmoid": [({"x": X}, special.expit(N))],
    "relu": [({"x": X}, np.maximum(N, 0))],
    "silu": [({"x": X}, N * special.expit(N))],
    "erf": [({"x": X}, special.erf(N))],
    "identity": [({"x": X}, N)],
    "gelu": [
        ({"x": X}, N * special.ndtr(N)),
        ({"x": X, "mode": "SIGMOID_APPROXIMATION"}, N * special.expit(1.702 * N)),
        ({"x": X, "mode": "TANH_APPROXIMATION"}, N / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (N + 0.044715 * N**3)))),
    ],
    "clip": [({"x": X, "alpha": -0.3, "beta": 0.6}, np.clip(N, -0.3, 0.6))],
    "softmax": [({"x": X, "axis": 1}, special.softmax(N, axis=1)), ({"x": X}, special.softmax(N, axis=-1))],
    "linear": [
        ({"x": X, "weight": W, "bias": BIAS}, N @ W.numpy().T + BIAS.numpy()),
        ({"x": X, "weight": W}, N @ W.numpy().T),
    ],
    "matmul": [
        ({"x": X, "y": Y, "transpose_y": True}, np.einsum("abik,abjk->abij", N, M)),
        ({"x": X, "y": Y, "transpose_x": True}, np.einsum("abki,abkj->abij", N, M)),
    ],
    "scaled_dot_product_attention": [
        (
            {"query": X, "key": Y, "value": Y + 1},
            special.softmax(np.einsum("abik,abjk->abij", N, M) / 5**0.5, axis=-1) @ (M + 1),
        )
    ],
    "layer_norm": [
        (
            {"x": X, "axes": [-1], "gamma": torch.full((5,), 2.0), "beta": torch.ones(5), "epsilon": 0.1},
            2 * _normalised(N, (3,), 0.1) + 1,
        ),
        ({"x": X, "axes": [2, 3]}, _normalised(N, (2, 3), 1e-5)),
    ],
    "batch_norm": [
        (
            {"x": X, **STATS, "gamma": torch.full((3,), 2.0), "beta": torch.ones(3), "epsilon": 0.1},
            2 * (N - STATS["mean"].numpy()[:, None, None]) / (STATS["variance"].numpy()[:, None, None] + 0.1) ** 0.5
            + 1,
        )
    ],
    "l2_norm": [({"x": X, "epsilon": 0.3}, N / (np.einsum("bchw,bchw->b", N, N)[:, None, None, None] + 0.3) ** 0.5)],
    "reduce_mean": [
        ({"x": X, "axes": [1]}, N.mean(1)),
        ({"x": X, "axes": [1, 3], "keep_dims": True}, N.mean((1, 3), keepdims=True)),
    ],
    "reduce_sum": [({"x": X, "axes": [-1]}, N.sum(-1)), ({"x": X}, N.sum())],
    "reduce_max": [({"x": X, "axes": [2]}, N.max(2))],
    "reduce_min": [({"x": X, "axes": [0]}, N.min(0))],
    "reduce_l2_norm": [({"x": X, "axes": [1]}, np.sqrt((N**2).sum(1)))],
    "reduce_sum_square": [({"x": X, "axes": [2, 3]}, (N**2).sum((2, 3)))],
    "reduce_argmax": [
        ({"x": X, "axis": 1}, N.argmax(1)),
        ({"x": X, "axis": 2, "keep_dims": True}, N.argmax(2)[:, :, None]),
    ],
    "reshape": [({"x": X, "shape": [0, -1, 5]}, N.reshape(2, 12, 5))],
    "transpose": [({"x": X, "perm": [2, 0, 3, 1]}, N.transpose(2, 0, 3, 1))],
    "squeeze": [({"x": X[:, :1, :, :1], "axes": [1]}, N[:, 0, :, :1]), ({"x": X[:, :1, :, :1]}, N[:, 0, :, 0])],
    "expand_dims": [({"x": X, "axes": [1, -1]}, N[:, None, ..., None])],
    "concat": [({"values": [X, Y], "axis": 2}, np.concatenate([N, M], 2))],
    "stack": [({"values": [X, Y], "axis": 1}, np.stack([N, M], 1))],
    "split": [
        ({"x": X, "axis": 2, "num_splits": 2}, [N[:, :, :2], N[:, :, 2:]]),
        ({"x": X, "axis": 3, "split_sizes": [1, 4]}, [N[..., :1], N[..., 1:]]),
    ],
    "slice_by_index": [
        ({"x": X, "begin": [0, 1, 0, 4], "end": [2, 3, 4, 0], "stride": [1, 1, 2, -2]}, N[:, 1:3, ::2, 4:0:-2]),
        (
            {
                "x": X,
                "begin": [1, 0, 9, 1],
                "end": [9, 2, 9, 9],
                "end_mask": [0, 0, 0, 1],
                "begin_mask": [0, 1, 1, 0],
                "squeeze_mask": [1, 0, 0, 0],
            },
            N[1, :2, :, 1:],
        ),
    ],
    "gather": [
        ({"x": X, "indices": INDICES, "axis": 1}, N[:, [2, 0, 2]]),
        ({"x": X, "indices": 1, "axis": -1}, N[..., 1]),
    ],
    "gather_nd": [({"x": X, "indices": torch.tensor([[0, 2], [1, 1]])}, N[[0, 1], [2, 1]])],
    "reverse": [({"x": X, "axes": [1, 3]}, N[:, ::-1, :, ::-1]), ({"x": X}, N[::-1, ::-1, ::-1, ::-1])],
    "tile": [({"x": X, "reps": [1, 2, 1, 3]}, np.tile(N, (1, 2, 1, 3)))],
    "pad": [
        (
            {"x": X, "pad": [0, 0, 0, 0, 1, 2, 0, 3], "constant_val": 7.0},
            np.pad(N, ((0, 0), (0, 0), (1, 2), (0, 3)), constant_values=7),
        ),
        ({"x": X, "pad": [1, 2, 0, 3], "mode": "reflect"}, np.pad(N, ((0, 0), (0, 0), (1, 2), (0, 3)), mode="reflect")),
        ({"x": X, "pad": [1, 2, 0, 3], "mode": "replicate"}, np.pad(N, ((0, 0), (0, 0), (1, 2), (0, 3)), mode="edge")),
    ],
    "conv": [
        (
            {
                "x": X,
                "weight": KERNEL,
                "bias": torch.arange(4.0),
                "strides": [1, 2],
                "pad_type": "custom",
                "pad": [1, 0, 0, 1],
            },
            _patches(),
        ),
        (
            {"x": X, "weight": KERNEL[:3, :1], "groups": 3, "dilations": [2, 1]},
            F.conv2d(X, KERNEL[:3, :1], dilation=(2, 1), groups=3),
        ),
    ],
    "pixel_shuffle": [
        (
            {"x": SHUFFLED, "upscale_factor": 2},
            SHUFFLED.view(1, 2, 2, 2, 2, 3).permute(0, 1, 4, 2, 5, 3).reshape(1, 2, 4, 6),
        )
    ],
    "pixel_unshuffle": [
        (
            {"x": SHUFFLED[:, :, :, :2], "downscale_factor": 2},
            SHUFFLED[:, :, :, :2].view(1, 8, 1, 2, 1, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 32, 1, 1),
        )
    ],
    "upsample_nearest_neighbor": [
        ({"x": X, "scale_factor_height": 2, "scale_factor_width": 3}, N.repeat(2, 2).repeat(3, 3))
    ],
    "cast": [
        ({"x": 1000 * X, "dtype": "int32"}, (1000 * N).astype(np.int32)),
        ({"x": X, "dtype": "fp16"}, N.astype(np.float16)),
    ],
    "fill": [({"shape": [2, 3], "value": 1.5}, np.full((2, 3), 1.5))],
    "range_1d": [({"start": 1, "end": 8, "step": 3}, np.array([1, 4, 7]))],
    "shape": [({"x": X}, np.array([2, 3, 4, 5]))],
    "select": [({"cond": LEFT, "a": X, "b": Y}, np.where(N > 0, N, M))],
}


def test_every_operation_has_a_case() -> None:
    assert CASES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("name", CASES)
def test_operations_do_what_they_say(name: str) -> None:
    for arguments, expected in CASES[name]:
        made = OPERATIONS[name](**arguments)
        pairs = zip(made, expected, strict=True) if isinstance(made, list) else [(made, expected)]
        for ours, theirs in pairs:
            theirs = theirs if isinstance(theirs, Tensor) else torch.from_numpy(np.array(theirs))
            torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=1e-5)
            assert ours.dtype.is_floating_point == theirs.dtype.is_floating_point


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("concat", {"values": [X, Y], "axis": 1, "interleave": True}),
        ("gather", {"x": X, "indices": INDICES, "axis": 1, "batch_dims": 1}),
        ("gather_nd", {"x": X, "indices": INDICES[None], "batch_dims": 1}),
        ("conv", {"x": X, "weight": KERNEL, "pad_type": "same"}),
    ],
)
def test_what_is_not_computed_is_refused(name: str, arguments: dict) -> None:
    with pytest.raises(ExportError, match="is not in the executor"):
        OPERATIONS[name](**arguments)
