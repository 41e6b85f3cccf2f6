"""Measures of movement in single clips, by dense optical flow (Farneback, OpenCV) and frame differences.

VBench measures motion with RAFT and a frame-interpolation network; both need downloads. Farneback needs none and
is within 0.01 pixels a frame on known translations. The motion that a caption asks for is also read back from the flow
(`read_motion`), as the colour is from pixels (`quality.read_colour`): the check on the judge that no training can bend.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.errors import ParameterError

#: A frame moves when its largest 5 % of flow lengths average above this share of the shorter side. VBench asks for
#: 6 pixels at 256 (0.023), made for camera motion; our slowest motion, an object that shrinks, is near 0.004, and a
#: still clip stays below 0.0005.
DYNAMIC_FLOW = 0.003
#: Clips are pooled to about this side first: flow costs four times less than at 128 and agrees.
FLOW_SIDE = 64
#: Step between the frames that are interpolated from their neighbours (VBench: 2, for twice the time).
INTERPOLATED_EVERY = 4
#: Share of the frames that must move (VBench: 4 of 16).
DYNAMIC_SHARE = 0.25
#: A pixel moves when its flow is longer than this share of the longest (98th percentile) of its frame.
_MOVES = 0.1
#: Growth of the object over a clip from which it grows; rendered growth is at least 0.4.
_GROWTH = 0.1
#: A path that ends within this share of its length is a circle.
_CLOSED = 0.3


@dataclass(frozen=True)
class MotionMeasures:
    """Per clip, each (B,) float32."""

    dynamic: Tensor  # 1 where at least a quarter of the frames move by more than `DYNAMIC_FLOW` (VBench's rule)
    #: 1 - MAE on [0, 1] between every fourth frame and the one interpolated along the flow from its two neighbours
    #: (VBench's formula, on every second).
    smoothness: Tensor
    warping_error: Tensor  # mean absolute difference on [0, 1] of each frame from the next one warped back onto it
    action: Tensor  # int64, the motion that the flow shows, as an index of `VOCABULARY["motion"]`


def temporal_flickering(clips: Tensor) -> Tensor:
    """(B,) VBench's (255 - MAE of neighbouring frames on [0, 255]) / 255; 1 for a frozen clip."""
    return 1 - clips.diff(dim=2).abs().mean((1, 2, 3, 4)) / 2


def measure_motion(clips: Tensor) -> MotionMeasures:
    """Flow-based measures of clips (B, 3, T, H, W) in [-1, 1], T >= 3."""
    if clips.ndim != 5 or clips.shape[1] != 3:
        raise ParameterError(f"expected clips (B, 3, T, H, W), got {tuple(clips.shape)}")
    if clips.shape[2] < 3:
        raise ParameterError(f"motion needs three frames or more, got {clips.shape[2]}")
    factor = max(1, min(clips.shape[-2:]) // FLOW_SIDE)
    small = F.avg_pool3d(clips.detach().float().cpu(), (1, factor, factor))
    frames = (small.permute(0, 2, 3, 4, 1).numpy() + 1) / 2
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # OpenCV and NumPy let go of the interpreter
        measured = list(pool.map(_measure_one, frames))
    rows = torch.from_numpy(np.array(measured, dtype=np.float32))
    return MotionMeasures(*rows[:, :-1].unbind(1), rows[:, -1].long())


def contrast_plane(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) in [0, 1] as uint8 (T, H, W) along the colour axis in which the clip varies most.

    Grey would do for most clips, but a red object on a grey wall of its own brightness vanishes in grey.
    """
    pixels = frames[::4].reshape(-1, 3)
    mean = pixels.mean(0)
    axis = np.linalg.eigh(np.cov(pixels.T))[1][:, -1].astype(frames.dtype)
    axis *= np.sign(axis.sum()) or 1.0  # eigenvectors have no sign of their own: brighter stays brighter
    return ((frames - mean) @ axis * 255 + 127.5).clip(0, 255).round().astype(np.uint8)


def flow_field(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) displacement in pixels between two planes: second(p + flow(p)) shows what first(p) shows."""
    import cv2

    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample a frame (H, W, 3) at p + flow(p)."""
    import cv2

    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    frame, across, down = np.ascontiguousarray(frame, np.float32), x + flow[..., 0], y + flow[..., 1]
    return cv2.remap(frame, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


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


def _measure_one(frames: np.ndarray) -> tuple[float, ...]:
    """Measures of one clip (T, H, W, 3) in [0, 1], in the order of `MotionMeasures`."""
    planes = contrast_plane(frames)
    flows = [flow_field(a, b) for a, b in pairwise(planes)]
    side = min(frames.shape[1:3])
    lengths = np.array([_largest(np.linalg.norm(flow, axis=-1)) for flow in flows]) / side
    dynamic = float((lengths > DYNAMIC_FLOW).sum() >= DYNAMIC_SHARE * len(frames))
    errors = [np.abs(warp(b, flow) - a).mean() for a, b, flow in zip(frames[:-1], frames[1:], flows, strict=True)]
    jumps = [
        np.abs(_between(frames, planes, i) - frames[i]).mean() for i in range(1, len(frames) - 1, INTERPOLATED_EVERY)
    ]
    action = VOCABULARY["motion"].index(read_motion(np.stack(flows), DYNAMIC_FLOW))
    return dynamic, 1 - float(np.mean(jumps)), float(np.mean(errors)), action


def _largest(lengths: np.ndarray, share: float = 0.05) -> float:
    """Mean of the largest values, as VBench takes it."""
    count = max(1, int(share * lengths.size))
    return float(np.partition(lengths.ravel(), -count)[-count:].mean())


def _between(frames: np.ndarray, planes: np.ndarray, i: int) -> np.ndarray:
    """Frame i as its two neighbours give it, half-way along the flow; VBench asks an interpolation network."""
    flow = flow_field(planes[i - 1], planes[i + 1])
    back = flow_field(planes[i + 1], planes[i - 1])
    # p in the middle frame comes from about p - flow/2 before and p - back/2 after: exact for constant flow
    return (warp(frames[i - 1], -flow / 2) + warp(frames[i + 1], -back / 2)) / 2
