"""The ML Program operations that our packages use, as torch functions (iOS 18 operation set).

Arguments carry the names of the ML Program operations, floating-point operands arrive in float32. Integer arguments
arrive as Python numbers or integer tensors. What an argument means is coremltools' documentation of the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.errors import ExportError

Number = Tensor | float | int


def _ints(value: object) -> list[int]:
    """Integers from a tensor, list or number."""
    if isinstance(value, Tensor):
        return [int(v) for v in value.reshape(-1).tolist()]
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]


def _tensor(value: Number) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x: function(_tensor(x))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: function(_tensor(x), _tensor(y))


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: object = None, keep_dims: bool = False) -> Tensor:
        return function(x, dim=tuple(range(x.ndim)) if axes is None else tuple(_ints(axes)), keepdim=bool(keep_dims))

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
    dims = tuple(range(x.ndim)) if axes is None else tuple(_ints(axes))
    centred = x - x.mean(dims, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    return (y if gamma is None else y * gamma) + (0 if beta is None else beta)


def reshape(x: Tensor, shape: object) -> Tensor:
    """New shape; 0 keeps an axis, -1 is inferred."""
    target = [x.shape[i] if n == 0 and x.numel() else n for i, n in enumerate(_ints(shape))]
    return x.reshape(target)


def squeeze(x: Tensor, axes: object = None) -> Tensor:
    """Drop axes of length 1."""
    return x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes)))


def expand_dims(x: Tensor, axes: object) -> Tensor:
    """Insert axes of length 1 at positions of the result."""
    x, places = _tensor(x), _ints(axes)
    for axis in sorted(a % (x.ndim + len(places)) for a in places):
        x = x.unsqueeze(axis)
    return x


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: object = None) -> list[Tensor]:
    """Pieces along an axis."""
    sizes = _ints(split_sizes) if split_sizes is not None else x.shape[axis] // num_splits
    return list(x.split(sizes, dim=axis))


def slice_by_index(
    x: Tensor, begin: object, end: object, stride: object = None, begin_mask: object = None, end_mask: object = None,
    squeeze_mask: object = None,
) -> Tensor:  # fmt: skip
    """Python-like slice of every axis; masks ignore a bound or drop an axis."""
    starts, ends = _ints(begin), _ints(end)
    steps = _ints(stride) if stride is not None else [1] * len(starts)
    free_start, free_end, drop = (
        [bool(v) for v in _ints(m)] if m is not None else [False] * len(starts)
        for m in (begin_mask, end_mask, squeeze_mask)
    )
    for axis, (start, stop, step) in enumerate(zip(starts, ends, steps, strict=True)):
        length = x.shape[axis]
        if drop[axis]:
            x = x.narrow(axis, start % length, 1)
            continue
        indices = range(length)[slice(None if free_start[axis] else start, None if free_end[axis] else stop, step)]
        x = x.index_select(axis, torch.tensor(list(indices), dtype=torch.long))
    for axis in reversed([a for a, gone in enumerate(drop) if gone]):
        x = x.squeeze(axis)
    return x


def gather(x: Tensor, indices: Number, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Rows of `x` along an axis (embedding look-up)."""
    if batch_dims:
        raise ExportError("gather with batch_dims is not in the executor")
    index = _tensor(indices).long()
    index = torch.where(index < 0, index + x.shape[axis], index)
    rows = x.index_select(axis, index.reshape(-1))
    return rows.reshape(*x.shape[: axis % x.ndim], *index.shape, *x.shape[axis % x.ndim + 1 :])


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Elements or slices of `x` at index tuples."""
    if batch_dims:
        raise ExportError("gather_nd with batch_dims is not in the executor")
    return x[tuple(indices.long().unbind(-1))]


def pad(x: Tensor, pad: object, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last axes; amounts are listed from the first of them to the last."""
    amounts = _ints(pad)
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    while len(pairs) > 1 and pairs[0] == [0, 0]:
        pairs.pop(0)
    flat = [n for pair in reversed(pairs) for n in pair]
    if mode == "constant":
        return F.pad(x, flat, value=float(constant_val))
    return F.pad(x, flat, mode="replicate" if mode == "replicate" else "reflect")


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, strides: object = None, pad_type: str = "valid",
    pad: object = None, dilations: object = None, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution over 1 to 3 axes with explicit padding."""
    spatial = weight.ndim - 2
    steps = _ints(strides) if strides is not None else [1] * spatial
    spread = _ints(dilations) if dilations is not None else [1] * spatial
    if pad_type == "custom":
        amounts = _ints(pad)
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
    return _tensor(x).to(kinds[dtype])


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Clamp to [alpha, beta]."""
    return x.clamp(float(alpha), float(beta))


def range_1d(start: Number, end: Number, step: Number) -> Tensor:
    """Evenly spaced values."""
    return torch.arange(*(v.item() if isinstance(v, Tensor) else v for v in (start, end, step)))


def fill(shape: object, value: Number) -> Tensor:
    """A constant tensor."""
    return torch.full(_ints(shape), value.item() if isinstance(value, Tensor) else value)


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
    "transpose": lambda x, perm: x.permute(_ints(perm)),
    "squeeze": squeeze,
    "expand_dims": expand_dims,
    "concat": lambda values, axis, interleave=False: torch.cat([_tensor(v) for v in values], int(axis)),
    "stack": lambda values, axis: torch.stack([_tensor(v) for v in values], int(axis)),
    "split": split,
    "slice_by_index": slice_by_index,
    "gather": gather,
    "gather_nd": gather_nd,
    "tile": lambda x, reps: x.repeat(_ints(reps)),
    "pad": pad,
    "conv": conv,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "upsample_nearest_neighbor": upsample,
    "cast": cast,
    "fill": fill,
    "range_1d": range_1d,
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "select": lambda cond, a, b: torch.where(_tensor(cond).bool(), _tensor(a), _tensor(b)),
    "reduce_argmax": lambda x, axis=-1, keep_dims=False, output_dtype="int32": x.argmax(
        int(axis), keepdim=bool(keep_dims)
    ),
}
