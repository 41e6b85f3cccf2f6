"""How reconstruction falls with the number of latent channels: a whole curve from one PCA codec.

A PCA's channels are ordered by energy and orthogonal after decoding, so that keeping the first c of a wide codec's
channels *is* the codec of c channels. One fit a ratio gives quality at every latent size, in closed form: the
closed-form reference of the ratio sweep (the paper's Table 3), and a way to degrade clips step by step (R2.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.reconstruction import psnr
from mobivid_core.models.vae import MobiVidVAE


@torch.no_grad()
def truncated(pca: MobiVidVAE, clips: Tensor, channels: int, batch: int = 8) -> Tensor:
    """Clips through a PCA codec of which only the first `channels` are kept, clamped to [-1, 1].

    A codec that is not linear (width 0), or has fewer channels, is a `ParameterError`.
    """
    if pca.config.width or not 1 <= channels <= pca.config.latent_channels:
        raise ParameterError(
            f"needs a PCA codec (width 0) of {channels} channels or more, at least 1; got width {pca.config.width} and "
            f"{pca.config.latent_channels} channels"
        )
    parts = []
    for part in clips.split(batch):
        raw = pca.linear_encoder(part)
        raw[:, channels:] = 0
        parts.append(pca.linear_decoder(raw).clamp(-1, 1))
    return torch.cat(parts)


def rate_distortion(pca: MobiVidVAE, clips: Tensor, channels: Sequence[int]) -> pd.DataFrame:
    """PSNR of held-out clips (N, 3, T, H, W) at several latent sizes of a PCA codec, a row a number of `channels`.

    With `latent_floats` of one clip, `pixels_per_float`, `psnr_db` with its `_low` and `_high`.
    """
    _, steps, height, width = pca.latent_shape(*clips.shape[2:])
    rows = []
    for kept in channels:
        found = intervals.mean(psnr(truncated(pca, clips, kept), clips))
        floats = kept * steps * height * width
        row = {"channels": kept, "latent_floats": floats, "pixels_per_float": clips[0].numel() / floats}
        rows.append(row | intervals.named("psnr_db", found))
    return pd.DataFrame(rows)


def channels_at(curve: pd.DataFrame, psnr_db: float) -> float:
    """Channels at which a curve reaches a PSNR, between its points by the logarithm of the channels; NaN outside."""
    own = curve.sort_values("psnr_db")
    return float(2 ** np.interp(psnr_db, own.psnr_db, np.log2(own.channels), left=np.nan, right=np.nan))
