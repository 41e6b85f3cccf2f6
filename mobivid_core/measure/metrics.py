"""Measures of reconstructions (the paper's compression section): PSNR, SSIM, and how the change of frames is kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mobivid_core.errors import ParameterError


def psnr(clips: Tensor, reference: Tensor) -> Tensor:
    """PSNR (B,) in dB of clips (B, 3, T, H, W) in [-1, 1] over all pixels and frames; infinite for identical ones."""
    _same_shape(clips, reference)
    error = (clips.double() - reference.double()).square().mean((1, 2, 3, 4))
    return (10 * torch.log10(4 / error)).float()  # peak-to-peak of [-1, 1] is 2


def ssim(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) structural similarity: the mean over frames of pytorch-msssim's SSIM (11-pixel window)."""
    return _per_frame(clips, reference, "ssim")


def ms_ssim(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) multi-scale SSIM, mean over frames.

    The five scales need more than 160 pixels; below that the window shrinks to what four halvings of the
    shorter side allow (7 pixels at 128, 3 at 64), so values compare only at one size.
    """
    return _per_frame(clips, reference, "ms_ssim")


def temporal_difference_error(clips: Tensor, reference: Tensor) -> Tensor:
    """(B,) mean absolute error of frame differences on the 0 to 2 scale; 0 for one frame."""
    _same_shape(clips, reference)
    if clips.shape[2] < 2:
        return clips.new_zeros(len(clips))
    return (clips.diff(dim=2) - reference.diff(dim=2)).abs().mean((1, 2, 3, 4))


def pairwise_distance(features: np.ndarray | Tensor) -> float:
    """Mean Euclidean distance between different rows of (N, F): how far apart the members of a set lie."""
    rows = torch.as_tensor(features, dtype=torch.float64)
    if len(rows) < 2:
        raise ParameterError(f"a pairwise distance needs two rows or more, got {len(rows)}")
    return float(torch.pdist(rows).mean())


def _per_frame(clips: Tensor, reference: Tensor, name: str) -> Tensor:
    import pytorch_msssim

    _same_shape(clips, reference)
    b, c, t, h, w = clips.shape
    frames, target = (x.transpose(1, 2).reshape(b * t, c, h, w) / 2 + 0.5 for x in (clips, reference))
    if name == "ssim":
        values = pytorch_msssim.ssim(frames, target, data_range=1.0, size_average=False)
    else:
        window = min(11, (min(h, w) - 1) // 16 | 1)  # pytorch-msssim wants the side above 16 (window - 1)
        while min(h, w) <= 16 * (window - 1):
            window -= 2
        values = pytorch_msssim.ms_ssim(frames, target, data_range=1.0, size_average=False, win_size=window)
    return values.reshape(b, t).mean(1)


def _same_shape(clips: Tensor, reference: Tensor) -> None:
    if clips.ndim != 5 or clips.shape != reference.shape:
        raise ParameterError(
            f"expected two batches of clips (B, 3, T, H, W) of one shape, got {tuple(clips.shape)} and "
            f"{tuple(reference.shape)}"
        )
