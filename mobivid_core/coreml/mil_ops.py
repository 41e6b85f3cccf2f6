"""The ML Program operations that our packages use, as torch functions (iOS 18 operation set).

Arguments carry the names of the ML Program operations, floating-point operands arrive in float32. Integer arguments
arrive as Python numbers or integer tensors. What an argument means is coremltools' documentation of the operation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, as_tensor

from mobivid_core.errors import ExportError

_TYPES = {
    "fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32, "int16": torch.int16, "bool": torch.bool,
}  # fmt: skip


def ints(value: object) -> list[int]:
    """Integers from a tensor, list or number."""
    return [int(v) for v in as_tensor(value).reshape(-1).tolist()]


def _axes(x: Tensor, axes: object) -> tuple[int, ...]:
    """The named axes, or all."""
    return tuple(range(x.ndim)) if axes is None else tuple(ints(axes))


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(as_tensor(x))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: function(as_tensor(x), as_tensor(y))


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes=None, keep_dims=False: function(x, dim=_axes(x, axes), keepdim=bool(keep_dims))


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
    dims = _axes(x, axes)
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
        x = F.pad(x, _last_axis_first(ints(pad)))
    elif pad_type != "valid":
        raise ExportError(f"conv with pad_type {pad_type!r} is not in the executor")
    return (F.conv1d, F.conv2d, F.conv3d)[spatial - 1](x, weight, bias, steps, 0, spread, int(groups))


def pad(x: Tensor, pad: object, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last axes; amounts are listed from the first of them to the last."""
    amounts = ints(pad)
    while len(amounts) > 2 and amounts[:2] == [0, 0]:
        amounts = amounts[2:]
    if mode == "constant":
        return F.pad(x, _last_axis_first(amounts), value=float(constant_val))
    return F.pad(x, _last_axis_first(amounts), mode="replicate" if mode == "replicate" else "reflect")


def _last_axis_first(amounts: list[int]) -> list[int]:
    """Pairs (before, after) in the order in which torch takes them."""
    return [n for i in reversed(range(0, len(amounts), 2)) for n in amounts[i : i + 2]]


def reshape(x: Tensor, shape: object) -> Tensor:
    """New shape; 0 keeps an axis, -1 is inferred."""
    return x.reshape([x.shape[i] if n == 0 and x.numel() else n for i, n in enumerate(ints(shape))])


def expand_dims(x: Tensor, axes: object) -> Tensor:
    """Insert axes of length 1 at positions of the result."""
    x, places = as_tensor(x), ints(axes)
    for axis in sorted(a % (x.ndim + len(places)) for a in places):
        x = x.unsqueeze(axis)
    return x


def concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Pieces one after the other along an axis."""
    if interleave:
        raise ExportError("concat with interleave is not in the executor")
    return torch.cat([as_tensor(v) for v in values], int(axis))


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: object = None) -> list[Tensor]:
    """Pieces along an axis."""
    sizes = ints(split_sizes) if split_sizes is not None else x.shape[axis] // num_splits
    return list(x.split(sizes, dim=axis))


def slice_by_index(
    x: Tensor, begin: object, end: object, stride: object = None, begin_mask: object = None, end_mask: object = None,
    squeeze_mask: object = None,
) -> Tensor:  # fmt: skip
    """Python-like slice of every axis; masks ignore a bound or drop an axis."""
    starts, ends = ints(begin), ints(end)
    steps = ints(stride) if stride is not None else [1] * len(starts)
    free_start, free_end, drop = (
        [0] * len(starts) if mask is None else ints(mask) for mask in (begin_mask, end_mask, squeeze_mask)
    )
    for axis, (start, stop, step) in enumerate(zip(starts, ends, steps, strict=True)):
        length = x.shape[axis]
        if drop[axis]:
            x = x.narrow(axis, start % length, 1)
            continue
        indices = range(length)[slice(None if free_start[axis] else start, None if free_end[axis] else stop, step)]
        x = x.index_select(axis, torch.tensor(list(indices), dtype=torch.long))
    return x.squeeze(tuple(axis for axis, gone in enumerate(drop) if gone))


def gather(
    x: Tensor, indices: Tensor | int, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Rows of `x` along an axis (embedding look-up)."""
    if batch_dims:
        raise ExportError("gather with batch_dims is not in the executor")
    return x[(slice(None),) * (axis % x.ndim) + (as_tensor(indices).long(),)]


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Elements or slices of `x` at index tuples."""
    if batch_dims:
        raise ExportError("gather_nd with batch_dims is not in the executor")
    return x[tuple(indices.long().unbind(-1))]


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalise channels by stored statistics."""
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def upsample(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """Nearest-neighbour enlargement of the last two axes."""
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)), mode="nearest")


#: Element-wise operations whose names are torch's too.
_BINARY = (
    "add", "sub", "mul", "maximum", "minimum", "pow", "greater", "greater_equal", "less", "less_equal", "not_equal",
    "logical_and", "logical_or",
)  # fmt: skip
_UNARY = (
    "logical_not", "abs", "exp", "sqrt", "square", "sin", "cos", "tanh", "sigmoid", "relu", "erf",
)  # fmt: skip
#: ML Program operation -> torch function.
OPERATIONS: dict[str, Callable[..., Tensor | list[Tensor]]] = {
    **{name: _binary(getattr(torch, name)) for name in _BINARY},
    **{name: _unary(getattr(torch, name)) for name in _UNARY},
    "real_div": _binary(torch.true_divide),
    "floor_div": _binary(torch.floor_divide),
    "equal": _binary(torch.eq),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "silu": _unary(F.silu),
    "identity": lambda x: x,
    "gelu": gelu,
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "softmax": lambda x, axis=-1: x.softmax(int(axis)),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "layer_norm": layer_norm,
    "batch_norm": batch_norm,
    "l2_norm": lambda x, epsilon=1e-12: x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon),
    "reduce_mean": _reduce(torch.mean),
    "reduce_sum": _reduce(torch.sum),
    "reduce_max": _reduce(torch.amax),
    "reduce_min": _reduce(torch.amin),
    "reduce_l2_norm": _reduce(torch.linalg.vector_norm),
    "reduce_sum_square": lambda x, axes=None, keep_dims=False: _reduce(torch.sum)(x.square(), axes, keep_dims),
    "reshape": reshape,
    "transpose": lambda x, perm: x.permute(ints(perm)),
    "squeeze": lambda x, axes=None: x.squeeze(_axes(x, axes)),
    "expand_dims": expand_dims,
    "concat": concat,
    "stack": lambda values, axis: torch.stack([as_tensor(v) for v in values], int(axis)),
    "split": split,
    "slice_by_index": slice_by_index,
    "gather": gather,
    "gather_nd": gather_nd,
    "reverse": lambda x, axes=None: x.flip(_axes(x, axes)),
    "tile": lambda x, reps: x.repeat(ints(reps)),
    "pad": pad,
    "conv": conv,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "upsample_nearest_neighbor": upsample,
    "cast": lambda x, dtype: as_tensor(x).to(_TYPES[dtype]),  # float16 rounds here in either mode, as asked for
    "fill": lambda shape, value: torch.full(ints(shape), as_tensor(value).item()),
    "range_1d": lambda start, end, step: torch.arange(*(as_tensor(v).item() for v in (start, end, step))),
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "select": lambda cond, a, b: torch.where(as_tensor(cond).bool(), as_tensor(a), as_tensor(b)),
    "reduce_argmax": lambda x, axis=-1, keep_dims=False, output_dtype="int32": x.argmax(
        int(axis), keepdim=bool(keep_dims)
    ),
}
