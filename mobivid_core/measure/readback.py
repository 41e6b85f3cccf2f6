"""Colour and motion read back from a clip without any network: the check on the judge that no training can bend.

The renderer's geometry is known: one large object over the middle of a background that stands still and is muted. So
the object's colour is that of the vivid middle, and its motion is the drift, turn and growth of the optical flow.
Shape and background have no such reading.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.data.render import HUES

#: Attributes that can be read so, in the order of the columns of `read_back`.
READABLE = ("colour", "motion")
#: Part of the side that the middle covers: objects practically always overlap it.
_MIDDLE = 0.5
#: A pixel is vivid when its largest and smallest channel differ by more; backgrounds but photos and film stay below.
_VIVID = 0.22
#: White is what is left: fewer vivid pixels than this share of the middle.
_COLOURED_SHARE = 0.12
#: A pixel moves when its flow is longer than this share of the longest (98th percentile) of its frame.
_MOVES = 0.1
#: Growth of the object over a clip from which it grows; rendered growth is at least 0.4.
_GROWTH = 0.1
#: A path that ends within this share of its length is a circle.
_CLOSED = 0.3


def read_colour(clips: Tensor) -> Tensor:
    """(B,) the colour of the object in the middle of clips (B, 3, T, H, W), as an index of `VOCABULARY["colour"]`."""
    h, w = clips.shape[-2:]
    y, x = round(h * (1 - _MIDDLE) / 2), round(w * (1 - _MIDDLE) / 2)
    pixels = clips[:, :, ::4, y : h - y : 2, x : w - x : 2].flatten(2).clamp(-1, 1) / 2 + 0.5
    chroma = pixels.amax(1) - pixels.amin(1)
    weight = chroma * (chroma > _VIVID)
    phase = (_chroma_plane(pixels) * weight[:, None]).sum(-1)
    names = [name for name in VOCABULARY["colour"] if name != "white"]
    axes = F.normalize(_chroma_plane(torch.tensor([HUES[name] for name in names]).T[None])[0].T, dim=1)
    nearest = torch.tensor([VOCABULARY["colour"].index(name) for name in names])[(phase @ axes.T).argmax(1)]
    white = (chroma > _VIVID).float().mean(1) < _COLOURED_SHARE
    return torch.where(white, VOCABULARY["colour"].index("white"), nearest)


def read_motion(flows: np.ndarray, still_below: float) -> str:
    """The motion of a clip, one of `VOCABULARY["motion"]`, from its optical flow (T - 1, H, W, 2) in pixels a frame.

    The flow of each frame is fitted with a shift and a growth about the middle of what moves. Nothing moves where the
    mean of the largest flows, as a share of the side, is below `still_below`.
    """
    lengths = np.linalg.norm(flows, axis=-1)
    side = min(flows.shape[1:3])
    count = max(1, lengths[0].size // 20)
    largest = np.partition(lengths.reshape(len(flows), -1), -count, axis=1)[:, -count:]
    if largest.mean() / side < still_below:
        return "still"
    fits = np.array([_shift_and_growth(flow, length) for flow, length in zip(flows, lengths, strict=True)])
    across, down, growth = fits.sum(0)
    shift = np.hypot(across, down)
    # growth moves the rim, about a quarter of the side from the middle; a shift that is twice that is a move
    if abs(growth) > max(_GROWTH, 2 * shift / side):
        return "growing" if growth > 0 else "shrinking"
    if shift < _CLOSED * np.linalg.norm(fits[:, :2], axis=1).sum():
        return "circling"
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"


def _shift_and_growth(flow: np.ndarray, length: np.ndarray) -> tuple[float, float, float]:
    """Shift (x, y) in pixels and growth (a share) of one frame's flow, by least squares over what moves."""
    y, x = np.nonzero(length > max(_MOVES * np.quantile(length, 0.98), 1e-6))
    if len(x) == 0:
        return 0.0, 0.0, 0.0
    moved, off = flow[y, x], np.stack([x - x.mean(), y - y.mean()], -1)
    growth = (off * moved).sum() / max((off**2).sum(), 1e-9)
    return float(moved[:, 0].mean()), float(moved[:, 1].mean()), float(growth)


def _chroma_plane(pixels: Tensor) -> Tensor:
    """(B, 3, P) colours to their two opponent axes (B, 2, P): the angle is the hue."""
    r, g, b = pixels.unbind(1)
    return torch.stack([r - (g + b) / 2, 0.866 * (g - b)], 1)
