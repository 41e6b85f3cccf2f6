"""The ratio sweep of the paper's compression section, twice: at equal latent floats and at equal latent channels.

At equal floats, a ratio with twice the volume gets twice the channels: the information is fixed, and only its shape
changes. At equal channels, the information falls as the ratio grows, as it does for whoever keeps a published VAE's
channels. Each point has a closed-form PCA codec and a VAE trained briefly around it: same data, steps and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
from torch import Tensor

from mobivid_core.measure import intervals
from mobivid_core.measure.rate_distortion import rate_distortion, truncated
from mobivid_core.measure.reconstruction import at_speed, equal_channels, measure, psnr, reconstruct, ssim
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.latent_costs import decoder_seconds, denoiser_seconds, pareto, ratio_name
from mobivid_core.train.vae import train_vae

#: Channels of the second sweep: what Wan 2.1, HunyuanVideo and CogVideoX give 4x8x8 (data/paper/vaes.csv).
EQUAL_CHANNELS = 16
FLOATS, CHANNELS = "equal floats", "equal channels"


@dataclass(frozen=True)
class SweepPoint:
    """One ratio (time, height, width) with one number of channels, of one sweep (`FLOATS` or `CHANNELS`).

    The closed-form codec `pca` may have more channels, of which the first are this point's; `vae` is briefly trained.
    """

    sweep: str
    ratio: tuple[int, int, int]
    channels: int
    pca: MobiVidVAE
    vae: MobiVidVAE

    @property
    def name(self) -> str:
        """For example "8x32x32 z128"."""
        return f"{ratio_name(self.ratio)} z{self.channels}"


def train_sweep(
    pool: Tensor,
    ratios: Sequence[tuple[int, int, int]],
    *,
    like: tuple[tuple[int, int, int], int],
    width: int,
    steps: int,
    seed: int = 0,
    batch: int = 4,
    crop: int = 64,
) -> list[SweepPoint]:
    """Fit and train every point of both sweeps on clips (N, 3, T, H, W) uint8; one that both share is trained once.

    The first sweep, in the order of the ratios, keeps the floats per pixel of `like`, a (ratio, channels). `width` is
    of the convolutional nets; every VAE takes `steps` of `batch` crops of `crop` x `crop` pixels, the same ones.
    """
    shared = {"seed": seed, "batch": batch, "crop": crop, "progress": False}

    @cache
    def pca(ratio: tuple[int, int, int]) -> MobiVidVAE:
        most = max(equal_channels(ratio, *like), EQUAL_CHANNELS)
        return train_vae(pool, ratio=ratio, channels=most, width=0, steps=0, seed=seed, progress=False)[0]

    @cache
    def vae(ratio: tuple[int, int, int], channels: int) -> MobiVidVAE:
        return train_vae(pool, ratio=ratio, channels=channels, width=width, steps=steps, **shared)[0]

    wanted = [(FLOATS, ratio, equal_channels(ratio, *like)) for ratio in ratios]
    wanted += [(CHANNELS, ratio, EQUAL_CHANNELS) for ratio in ratios]
    return [SweepPoint(sweep, ratio, c, pca(ratio), vae(ratio, c)) for sweep, ratio, c in wanted]


def sweep_table(points: Sequence[SweepPoint], held_out: Mapping[str, Tensor]) -> pd.DataFrame:
    """What every point reconstructs of held-out clips, {name of the data: (N, 3, T, H, W)} of one size.

    One row a point; for each data PCA's PSNR, the trained VAE's with its 95 % interval over clips, and its SSIM.
    """
    rows, seen = [], {}
    for point in points:
        shape = point.vae.latent_shape(*next(iter(held_out.values())).shape[2:])
        tokens = shape[1] * shape[2] * shape[3]
        row = {"sweep": point.sweep, "ratio": ratio_name(point.ratio), "channels": point.channels, "tokens": tokens,
               "latent floats": tokens * point.channels}  # fmt: skip
        if point.name not in seen:
            seen[point.name] = _measured(point, held_out)
        rows.append(row | seen[point.name])
    return pd.DataFrame(rows)


def equal_floats(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """The points of the first sweep, one a ratio."""
    return [point for point in points if point.sweep == FLOATS]


def sweep_curves(points: Sequence[SweepPoint], clips: Tensor) -> pd.DataFrame:
    """PSNR of held-out clips (N, 3, T, H, W) against latent size by PCA: `rate_distortion` of each ratio."""
    curves = []
    for point in equal_floats(points):
        widths = [c for c in (1, 2, 4, 8, 16, 32, 64, 128) if c <= point.pca.config.latent_channels]
        curves.append(rate_distortion(point.pca, clips, widths).assign(ratio=ratio_name(point.ratio)))
    return pd.concat(curves)


def price(
    points: Sequence[SweepPoint], sweep: pd.DataFrame, cost: pd.DataFrame, server: DiTConfig, shape: tuple[int, ...]
) -> pd.DataFrame:
    """Quality at equal floats (from `sweep_table`) beside what the denoiser costs (from `denoiser_costs`).

    Seconds of the miniature `server` and of the decoders on a clip (3, T, H, W) are measured, in turns, in one run.
    """
    codecs = {ratio_name(point.ratio): point.vae for point in equal_floats(points)}
    shapes = {name: codec.latent_shape(*shape[1:]) for name, codec in codecs.items()}
    fair = sweep[sweep.sweep == FLOATS]
    priced = fair[["ratio", "channels", "tokens", "film PSNR, dB"]].reset_index(drop=True)
    priced["miniature denoiser, ms"] = [1e3 * s for s in denoiser_seconds(server, shapes).values()]
    priced["miniature decoder, ms"] = [1e3 * s for s in decoder_seconds(codecs, shape).values()]
    priced["server TFLOP per forward (paper scale, derived)"] = cost["server TFLOP per forward"]
    priced["on the front"] = pareto(priced["miniature denoiser, ms"].tolist(), priced["film PSNR, dB"].tolist())
    return priced


def motion_by_ratio(points: Sequence[SweepPoint], clips: Tensor, frames: int) -> pd.DataFrame:
    """What motion costs at each ratio, by PCA at equal floats, so that training luck plays no part.

    The clips (N, 3, L, H, W) have 1 + 4 * (frames - 1) frames or more.
    """
    rows = []
    for point in equal_floats(points):
        db = {}
        for speed in (0, 1, 4):
            played = at_speed(clips, speed, frames)
            db[speed] = measure(truncated(point.pca, played, point.channels), played).psnr_db.mean()
        row = {"ratio": ratio_name(point.ratio), "channels": point.channels}
        row |= {f"{speed}x, dB": value for speed, value in db.items()}
        rows.append(row | {"cost of normal motion, dB": db[0] - db[1], "cost of 4x, dB": db[0] - db[4]})
    return pd.DataFrame(rows)


def _measured(point: SweepPoint, held_out: Mapping[str, Tensor]) -> dict[str, float]:
    values: dict[str, float] = {}
    for data, clips in held_out.items():
        rebuilt = reconstruct(point.vae, clips)
        values[f"{data} PCA, dB"] = psnr(truncated(point.pca, clips, point.channels), clips).mean().item()
        value, low, high = intervals.mean(psnr(rebuilt, clips))
        values |= {f"{data} PSNR, dB": value, f"{data} low": low, f"{data} high": high}
        values[f"{data} SSIM"] = ssim(rebuilt, clips).mean().item()
    return values
