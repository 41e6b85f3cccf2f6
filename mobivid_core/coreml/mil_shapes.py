"""ML Program operations that move values without changing them, as torch functions (iOS 18 operation set)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.errors import ExportError

Number = Tensor | float | int


def ints(value: object) -> list[int]:
    """Integers from a tensor, list or number."""
    if isinstance(value, Tensor):
        return [int(v) for v in value.reshape(-1).tolist()]
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]


def tensor(value: Number) -> Tensor:
    """A tensor of a Python number; tensors pass."""
    return value if isinstance(value, Tensor) else torch.tensor(value)


def reshape(x: Tensor, shape: object) -> Tensor:
    """New shape; 0 keeps an axis, -1 is inferred."""
    target = [x.shape[i] if n == 0 and x.numel() else n for i, n in enumerate(ints(shape))]
    return x.reshape(target)


def squeeze(x: Tensor, axes: object = None) -> Tensor:
    """Drop axes of length 1."""
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


def expand_dims(x: Tensor, axes: object) -> Tensor:
    """Insert axes of length 1 at positions of the result."""
    x, places = tensor(x), ints(axes)
    for axis in sorted(a % (x.ndim + len(places)) for a in places):
        x = x.unsqueeze(axis)
    return x


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
        [bool(v) for v in ints(m)] if m is not None else [False] * len(starts)
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
    index = tensor(indices).long()
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
    amounts = ints(pad)
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    while len(pairs) > 1 and pairs[0] == [0, 0]:
        pairs.pop(0)
    flat = [n for pair in reversed(pairs) for n in pair]
    if mode == "constant":
        return F.pad(x, flat, value=float(constant_val))
    return F.pad(x, flat, mode="replicate" if mode == "replicate" else "reflect")
