"""The ML Program operations that our packages use, as torch functions (iOS 18 operation set).

Arguments carry the names of the ML Program operations, floating-point operands arrive in float32. Integer arguments
arrive as Python numbers or integer tensors. What an argument means is coremltools' documentation of the operation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.coreml.mil_shapes import (
    Number,
    expand_dims,
    gather,
    gather_nd,
    ints,
    pad,
    reshape,
    slice_by_index,
    split,
    squeeze,
    tensor,
)
from mobivid_core.errors import ExportError


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(tensor(x))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: function(tensor(x), tensor(y))


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: object = None, keep_dims: bool = False) -> Tensor:
        return function(x, dim=tuple(range(x.ndim)) if axes is None else tuple(ints(axes)), keepdim=bool(keep_dims))

    return reduce


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """Gaussian error linear unit; the sigmoid approximation is x sigmoid(1.702 x)."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched product of the last two axes."""
    return torch.matmul(x.transpose(-1, -2) if transpose_x else x, y.transpose(-1, -2) if transpose_y else y)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, written out so that no fused kernel changes the arithmetic."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1) @ value


def layer_norm(
    x: Tensor, axes: object = None, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """Normalise over `axes`; scale and shift have the shape of those axes."""
    dims = tuple(range(x.ndim)) if axes is None else tuple(ints(axes))
    centred = x - x.mean(dims, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    return (y if gamma is None else y * gamma) + (0 if beta is None else beta)


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, strides: object = None, pad_type: str = "valid",
    pad: object = None, dilations: object = None, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution over 1 to 3 axes with explicit padding."""
    spatial = weight.ndim - 2
    steps = ints(strides) if strides is not None else [1] * spatial
    spread = ints(dilations) if dilations is not None else [1] * spatial
    if pad_type == "custom":
        amounts = ints(pad)
        x = F.pad(x, [n for i in reversed(range(spatial)) for n in amounts[2 * i : 2 * i + 2]])
    elif pad_type != "valid":
        raise ExportError(f"conv with pad_type {pad_type!r} is not in the executor")
    return (F.conv1d, F.conv2d, F.conv3d)[spatial - 1](x, weight, bias, steps, 0, spread, int(groups))


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise channels by stored statistics."""
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def upsample(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """Nearest-neighbour enlargement of the last two axes."""
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)), mode="nearest")


def cast(x: Number, dtype: str) -> Number:
    """Change of type; float16 rounds here in either mode, as the package asks for it."""
    kinds = {
        "fp16": torch.float16,
        "fp32": torch.float32,
        "int32": torch.int32,
        "int16": torch.int16,
        "bool": torch.bool,
    }
    return tensor(x).to(kinds[dtype])


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Clamp to [alpha, beta]."""
    return x.clamp(float(alpha), float(beta))


def range_1d(start: Number, end: Number, step: Number) -> Tensor:
    """Evenly spaced values."""
    return torch.arange(*(v.item() if isinstance(v, Tensor) else v for v in (start, end, step)))


def fill(shape: object, value: Number) -> Tensor:
    """A constant tensor."""
    return torch.full(ints(shape), value.item() if isinstance(value, Tensor) else value)


def l2_norm(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Normalise over the last three axes."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


#: ML Program operation -> torch function.
OPERATIONS: dict[str, Callable[..., Tensor | list[Tensor]]] = {
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "real_div": _binary(torch.true_divide),
    "floor_div": _binary(torch.floor_divide),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "pow": _binary(torch.pow),
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "equal": _binary(torch.eq),
    "not_equal": _binary(torch.ne),
    "logical_and": _binary(torch.logical_and),
    "logical_or": _binary(torch.logical_or),
    "logical_not": _unary(torch.logical_not),
    "abs": _unary(torch.abs),
    "exp": lambda x: torch.exp(x),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "sin": _unary(torch.sin),
    "cos": _unary(torch.cos),
    "tanh": _unary(torch.tanh),
    "sigmoid": _unary(torch.sigmoid),
    "relu": _unary(torch.relu),
    "silu": _unary(F.silu),
    "erf": _unary(torch.erf),
    "identity": lambda x: x,
    "gelu": gelu,
    "clip": clip,
    "softmax": lambda x, axis=-1: x.softmax(int(axis)),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "layer_norm": layer_norm,
    "batch_norm": batch_norm,
    "l2_norm": l2_norm,
    "reduce_mean": _reduce(torch.mean),
    "reduce_sum": _reduce(torch.sum),
    "reduce_max": _reduce(torch.amax),
    "reduce_min": _reduce(torch.amin),
    "reduce_l2_norm": _reduce(torch.linalg.vector_norm),
    "reduce_sum_square": lambda x, axes=None, keep_dims=False: _reduce(torch.sum)(x.square(), axes, keep_dims),
    "reshape": reshape,
    "transpose": lambda x, perm: x.permute(ints(perm)),
    "squeeze": squeeze,
    "expand_dims": expand_dims,
    "concat": lambda values, axis, interleave=False: torch.cat([tensor(v) for v in values], int(axis)),
    "stack": lambda values, axis: torch.stack([tensor(v) for v in values], int(axis)),
    "split": split,
    "slice_by_index": slice_by_index,
    "gather": gather,
    "gather_nd": gather_nd,
    "reverse": lambda x, axes=None: x.flip(tuple(range(x.ndim)) if axes is None else tuple(ints(axes))),
    "tile": lambda x, reps: x.repeat(ints(reps)),
    "pad": pad,
    "conv": conv,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "upsample_nearest_neighbor": upsample,
    "cast": cast,
    "fill": fill,
    "range_1d": range_1d,
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "select": lambda cond, a, b: torch.where(tensor(cond).bool(), tensor(a), tensor(b)),
    "reduce_argmax": lambda x, axis=-1, keep_dims=False, output_dtype="int32": x.argmax(
        int(axis), keepdim=bool(keep_dims)
    ),
}
