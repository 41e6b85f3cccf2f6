"""Token borders and sharpness: the two faults of a highly compressed codec that can be seen, and counted in pixels.

Paper: the highly compressed VAE, 8x32x32. Every token is decoded from its own latent, so what the codec or the
denoiser gets wrong differs from token to token, and steps appear every 32 pixels. A decoder trained on squared error
gives blur instead. Neither measure needs a network, a reference clip or the CPU.

Simplified: both read differences of neighbouring pixels, so noise raises sharpness and hides borders, and borders
raise sharpness a little. Read them together, beside a distance that passed the trials (`trust.trusted_space`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval

if TYPE_CHECKING:
    from mobivid_core.measure.measures import ClipMeasures

#: Height and width of a token in pixels: the paper's spatial ratio.
TOKEN = 32
#: Added to both sides of a ratio, an eightieth of an 8-bit step: a constant clip has ratio 1, others keep theirs.
_EPSILON = 1e-4


def border_ratio(clips: Tensor, patch: int = TOKEN) -> Tensor:
    """How much more neighbouring pixels of clips (N, 3, T, H, W) differ across borders of tokens than inside them.

    Returns:
        (N,) mean |difference of neighbouring pixels| across borders over the same away from them, both axes together:
        near 1 for clips that know nothing of tokens; 1 for a constant clip; NaN where a frame is one token.
    """
    if clips.ndim != 5:
        raise ParameterError(f"expected clips (N, 3, T, H, W), got a tensor of shape {tuple(clips.shape)}")
    if patch < 2:
        raise ParameterError(f"a token has two pixels or more on a side, got {patch}")
    sums, counts = [0.0, 0.0], [0, 0]  # across borders, inside
    for axis in (3, 4):
        # the mean over channels, frames and the other axis: one value a pair of neighbouring lines
        lines = clips.float().diff(dim=axis).abs().mean(tuple(d for d in (1, 2, 3, 4) if d != axis)).double()
        border = (torch.arange(lines.shape[1], device=clips.device) + 1) % patch == 0
        # lines of another axis may be longer: weigh by the pixel pairs that they stand for
        pairs = clips.shape[7 - axis]
        for place, chosen in enumerate((border, ~border)):
            sums[place] = sums[place] + pairs * lines[:, chosen].sum(1)
            counts[place] += pairs * int(chosen.sum())
    if not counts[0]:
        return clips.new_full((len(clips),), torch.nan, dtype=torch.float32)
    across, inside = (total / count for total, count in zip(sums, counts, strict=True))
    return ((across + _EPSILON) / (inside + _EPSILON)).float()


def sharpness(clips: Tensor) -> Tensor:
    """(N,) energy of the spatial Laplacian of clips (N, 3, T, H, W) in [-1, 1]: what blur takes away first.

    Mean square of the five-point Laplacian over channels, frames and inner pixels; 0 for constants and linear ramps.
    """
    if min(clips.shape[-2:]) < 3:
        raise ParameterError(f"a Laplacian needs frames of 3x3 pixels or more, got {tuple(clips.shape[-2:])}")
    x = clips.float()
    inner = x[..., 1:-1, 1:-1]
    laplacian = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:] - 4 * inner
    return laplacian.square().mean((1, 2, 3, 4))


def sharpness_ratio(ours: Tensor, real: Tensor, *, seed: int = 0) -> Interval:
    """Mean energy (N,) over that of real clips of the same captions, in pairs: 1 is as sharp, 0 has no detail."""
    a, b = (torch.as_tensor(x).detach().double().cpu().numpy() for x in (ours, real))
    if a.shape != b.shape or a.ndim != 1:
        raise ParameterError(f"a paired ratio needs one energy a clip on both sides, got {a.shape} and {b.shape}")
    return intervals.ratio(a, b, seed=seed)


@dataclass(frozen=True)
class Faults:
    """Both measures of some clips, (N,) each: `border_ratio` and `sharpness`."""

    borders: Tensor
    sharpness: Tensor

    @classmethod
    def of(cls, clips: Tensor) -> Faults:
        """Of clips (N, 3, T, H, W) in [-1, 1]."""
        return cls(border_ratio(clips).cpu(), sharpness(clips).cpu())


@dataclass(frozen=True)
class FaultTable:
    """Border ratio and sharpness of several versions of the same captions' clips."""

    table: pd.DataFrame  # clips, n, border_ratio and sharpness (over real clips') with `_low` and `_high`
    intervals: dict[str, dict[str, Interval]]  # {version: {"borders": interval, "sharpness": interval}}

    def finding(self, name: str) -> str:
        """One sentence for a finding on one version."""
        own, real = (self.table.set_index("clips").loc[which] for which in (name, "real clips"))
        return (
            f"Neighbouring pixels differ {own['border_ratio']:.2f} times as much across token borders as inside tokens "
            f"({name}; real clips {real['border_ratio']:.2f}), and the energy of the Laplacian is "
            f"{own['sharpness']:.0%} of real clips'"
        )


def fault_table(versions: Mapping[str, Faults | ClipMeasures], real: Faults | ClipMeasures) -> FaultTable:
    """Versions of clips beside the real clips, which come first; N each, clip i for the same caption in all."""
    rows, by_title = [], {}
    for title, own in {"real clips": real, **versions}.items():
        found = {"borders": intervals.mean(own.borders), "sharpness": sharpness_ratio(own.sharpness, real.sharpness)}
        by_title[title] = found
        row = {"clips": title, "n": len(own.borders), **intervals.named("border_ratio", found["borders"])}
        rows.append(row | intervals.named("sharpness", found["sharpness"]))
    return FaultTable(pd.DataFrame(rows), by_title)
