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
W, BIAS = torch.randn(6, 5, generator=R), torch.randn(6, generator=R)
KERNEL = torch.randn(4, 3, 2, 3, generator=R)
POSITIVE, LEFT = X.abs() + 0.1, X > 0
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


SHUFFLED = torch.randn(1, 8, 2, 3, generator=R)
#: operation -> [(arguments, what it should make)]
CASES: dict[str, list[tuple[dict, object]]] = {
    "add": [({"x": X, "y": Y}, N + M), ({"x": X, "y": 2.0}, N + 2)],
    "sub": [({"x": X, "y": Y}, N - M), ({"x": 1.0, "y": Y}, 1 - M)],
    "mul": [({"x": X, "y": Y}, N * M)],
    "pow": [({"x": POSITIVE, "y": Y}, POSITIVE.numpy() ** M)],
    "rsqrt": [({"x": POSITIVE, "epsilon": 0.5}, (POSITIVE.numpy() + 0.5) ** -0.5)],
    "greater_equal": [({"x": X, "y": Y}, N >= M), ({"x": X, "y": X}, N >= N)],
    "exp": [({"x": X}, np.exp(N))],
    "square": [({"x": X}, N**2)],
    "tanh": [({"x": X}, np.tanh(N))],
    "sigmoid": [({"x": X}, special.expit(N))],
    "silu": [({"x": X}, N * special.expit(N))],
    "identity": [({"x": X}, N)],
    "gelu": [
        ({"x": X}, N * special.ndtr(N)),
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
    "reduce_mean": [
        ({"x": X, "axes": [1]}, N.mean(1)),
        ({"x": X, "axes": [1, 3], "keep_dims": True}, N.mean((1, 3), keepdims=True)),
    ],
    "reshape": [({"x": X, "shape": [0, -1, 5]}, N.reshape(2, 12, 5))],
    "transpose": [({"x": X, "perm": [2, 0, 3, 1]}, N.transpose(2, 0, 3, 1))],
    "squeeze": [({"x": X[:, :1, :, :1], "axes": [1]}, N[:, 0, :, :1]), ({"x": X[:, :1, :, :1]}, N[:, 0, :, 0])],
    "expand_dims": [({"x": X, "axes": [1, -1]}, N[:, None, ..., None])],
    "concat": [({"values": [X, Y], "axis": 2}, np.concatenate([N, M], 2))],
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
    "reverse": [({"x": X, "axes": [1, 3]}, N[:, ::-1, :, ::-1]), ({"x": X}, N[::-1, ::-1, ::-1, ::-1])],
    "tile": [({"x": X, "reps": [1, 2, 1, 3]}, np.tile(N, (1, 2, 1, 3)))],
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
    "cast": [
        ({"x": 1000 * X, "dtype": "int32"}, (1000 * N).astype(np.int32)),
        ({"x": X, "dtype": "fp16"}, N.astype(np.float16)),
    ],
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
        ("conv", {"x": X, "weight": KERNEL, "pad_type": "same"}),
    ],
)
def test_what_is_not_computed_is_refused(name: str, arguments: dict) -> None:
    with pytest.raises(ExportError, match="is not in the executor"):
        OPERATIONS[name](**arguments)
