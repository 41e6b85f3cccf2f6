"""The ML Program operations that our packages use, as torch functions (iOS 18 operation set).

Arguments carry the names of the ML Program operations. Floating-point operands arrive in float32, constant scalars and
lists of integers as Python values. What an argument means is coremltools' documentation of the operation.
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


def _axes(x: Tensor, axes: list[int] | None) -> tuple[int, ...]:
    """The named axes, or all."""
    return tuple(range(x.ndim) if axes is None else axes)


def _elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, y=None: function(as_tensor(x)) if y is None else function(as_tensor(x), as_tensor(y))


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
    x: Tensor, axes: list[int], gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """Normalise over `axes`; scale and shift have the shape of those axes."""
    centred = x - x.mean(axes, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    return (y if gamma is None else y * gamma) + (0 if beta is None else beta)


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, strides: list[int] | int = 1, pad_type: str = "valid",
    pad: list[int] | None = None, dilations: list[int] | int = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution over 1 to 3 axes with explicit padding, (before, after) for each axis."""
    if pad_type == "custom":
        x = F.pad(x, [n for i in reversed(range(0, len(pad), 2)) for n in pad[i : i + 2]])  # torch: last axis first
    elif pad_type != "valid":
        raise ExportError(f"conv with pad_type {pad_type!r} is not in the executor")
    function = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    return function(x, weight, bias, strides, 0, dilations, groups)


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """New shape; 0 keeps an axis, -1 is inferred."""
    return x.reshape([x.shape[i] if n == 0 and x.numel() else n for i, n in enumerate(shape)])


def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """Insert axes of length 1 at positions of the result."""
    x = as_tensor(x)
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Pieces one after the other along an axis."""
    if interleave:
        raise ExportError("concat with interleave is not in the executor")
    return torch.cat([as_tensor(v) for v in values], axis)


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None) -> list[Tensor]:
    """Pieces along an axis."""
    return list(x.split(split_sizes or x.shape[axis] // num_splits, dim=axis))


def slice_by_index(
    x: Tensor, begin: list[int], end: list[int], stride: list[int] | None = None, begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None, squeeze_mask: list[bool] | None = None,
) -> Tensor:  # fmt: skip
    """Python-like slice of every axis; masks ignore a bound or drop an axis."""
    none = [False] * len(begin)
    free_begin, free_end, drop = (mask or none for mask in (begin_mask, end_mask, squeeze_mask))
    for axis, (start, stop, step) in enumerate(zip(begin, end, stride or [1] * len(begin), strict=True)):
        if drop[axis]:
            x = x.narrow(axis, start % x.shape[axis], 1)
            continue
        bounds = slice(None if free_begin[axis] else start, None if free_end[axis] else stop, step)
        x = x.index_select(axis, torch.tensor(range(x.shape[axis])[bounds], dtype=torch.long))
    return x.squeeze(tuple(axis for axis, gone in enumerate(drop) if gone))


def gather(
    x: Tensor, indices: Tensor | int, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Rows of `x` along an axis (embedding look-up)."""
    if batch_dims:
        raise ExportError("gather with batch_dims is not in the executor")
    return x[(slice(None),) * (axis % x.ndim) + (as_tensor(indices).long(),)]


#: Element-wise operations whose names are torch's too.
_ELEMENTWISE = ("add", "sub", "mul", "pow", "greater_equal", "square", "exp", "tanh", "sigmoid")
#: ML Program operation -> torch function.
OPERATIONS: dict[str, Callable[..., Tensor | list[Tensor]]] = {
    **{name: _elementwise(getattr(torch, name)) for name in _ELEMENTWISE},
    "silu": _elementwise(F.silu),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "identity": lambda x: x,
    "gelu": lambda x, mode="EXACT": F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode]),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "softmax": lambda x, axis=-1: x.softmax(axis),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
    "layer_norm": layer_norm,
    "reduce_mean": lambda x, axes=None, keep_dims=False: x.mean(_axes(x, axes), keepdim=keep_dims),
    "reshape": reshape,
    "transpose": lambda x, perm: x.permute(perm),
    "squeeze": lambda x, axes=None: x.squeeze(_axes(x, axes)),
    "expand_dims": expand_dims,
    "concat": concat,
    "split": split,
    "slice_by_index": slice_by_index,
    "gather": gather,
    "reverse": lambda x, axes=None: x.flip(_axes(x, axes)),
    "tile": lambda x, reps: x.repeat(reps),
    "conv": conv,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, upscale_factor),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, downscale_factor),
    "cast": lambda x, dtype: as_tensor(x).to(_TYPES[dtype]),  # float16 rounds here in either mode, as asked for
    "select": lambda cond, a, b: torch.where(as_tensor(cond).bool(), as_tensor(a), as_tensor(b)),
}
