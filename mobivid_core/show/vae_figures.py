"""Figures of notebook 01 with their findings: rate and distortion, cost, motion, sub-scores, generation, causality."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator
from torch import Tensor

from mobivid_core.measure.minivbench import QUALITY
from mobivid_core.measure.subscores import READ
from mobivid_core.show.outcome import FigureResult
from mobivid_core.show.vae_tables import FILM_PSNR, TIME, paced


def rate_distortion_figure(curves: pd.DataFrame, sweep: pd.DataFrame, shape: tuple[int, ...]) -> FigureResult:
    """PSNR against latent size for every ratio (`sweep_curves`), and both sweeps against tokens (`sweep_table`).

    `shape` is that of a clip, (3, T, H, W).
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    for ratio, own in curves.groupby("ratio", sort=False):
        left.semilogx(own.pixels_per_float, own.psnr_db, ".-", label=ratio)
    left.semilogx(np.prod(shape) / sweep["latent floats"], sweep[FILM_PSNR], "kx", label="briefly trained")
    left.set(xlabel="pixel values per latent float", ylabel="PSNR on held-out shots, dB", title="PCA in closed form")
    drift = {}
    for name, own in sweep.groupby("sweep", sort=False):
        right.semilogx(own.tokens, own[FILM_PSNR], "o-", label=name)
        drift[name] = own.sort_values("tokens")[FILM_PSNR].iloc[[0, -1]].diff().iloc[-1]
    fair = sweep[sweep.sweep == "equal floats"]
    _label(right, fair.ratio, fair.tokens, fair[FILM_PSNR])
    frames, height, width = shape[1:]
    right.set(xlabel=f"tokens of a {frames}x{height}x{width} clip", ylabel="PSNR, dB", title="the two sweeps")
    for axis in (left, right):
        axis.legend(fontsize=8)
    finding = (
        f"Right: from {sweep.tokens.min()} to {sweep.tokens.max()} tokens PSNR changes by {drift['equal floats']:+.1f} "
        f"dB at equal floats and by {drift['equal channels']:+.1f} dB at equal channels. Left: PCA in closed form "
        "(lines) and brief training (crosses)."
    )
    return FigureResult(fig, finding, paper_item="Table 3", data=curves)


def quality_cost_figure(priced: pd.DataFrame) -> FigureResult:
    """Quality against the denoiser's measured time and counted FLOPs; from `price`."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4))
    costs = (TIME, "server TFLOP per forward (paper scale, derived)")
    titles = ("miniature, measured", "cost at paper scale (derived), PSNR in miniature")
    for axis, cost, title in zip(axes, costs, titles, strict=True):
        axis.semilogx(priced[cost], priced[FILM_PSNR], "o")
        _label(axis, priced.ratio, priced[cost], priced[FILM_PSNR])
        axis.set(xlabel=cost, ylabel="PSNR on held-out shots, dB", title=title)
        axis.margins(0.2)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    apart = [priced[cost].max() / priced[cost].min() for cost in costs]
    finding = (
        f"At equal latent floats the ratios lie within {np.ptp(priced[FILM_PSNR]):.1f} dB, but up to {apart[0]:.0f} "
        f"times apart in the miniature denoiser's time and {apart[1]:.0f} times in the server's FLOPs at paper scale."
    )
    return FigureResult(fig, finding, paper_item="Table 3, R5.1", data=priced)


def motion_cost_figure(by_speed: Mapping[str, pd.DataFrame]) -> FigureResult:
    """PSNR of the same moments at several speeds, one grey line a shot; from `by_speeds`."""
    means = paced(by_speed)
    fig, axis = plt.subplots(figsize=(6, 3.4))
    axis.plot(list(by_speed), np.array([own.psnr_db for own in by_speed.values()]), color="0.75", lw=1)
    spread = [means.psnr_db - means.psnr_db_low, means.psnr_db_high - means.psnr_db]
    axis.errorbar(means.name, means.psnr_db, spread, fmt="o-", capsize=3, color="C0")
    axis.set(xlabel="playback speed of the same moment", ylabel="PSNR, dB")
    lost = means.psnr_db.iloc[0] - means.psnr_db.iloc[-1]
    finding = (
        f"From frozen to four times the speed the same moments lose {lost:.1f} dB (one grey line a shot): eight "
        "frames share one latent step, and motion takes capacity from detail."
    )
    return FigureResult(fig, finding, data=means)


def subscores_figure(scores: pd.DataFrame) -> FigureResult:
    """Every sub-score against PSNR, as a share of the originals'; from `subscores`."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6))
    shares = scores[[*READ, *QUALITY]] / scores[[*READ, *QUALITY]].iloc[0]
    curve = shares.assign(psnr_db=scores.psnr_db)[scores.version.str.startswith("PCA")]
    for axis, names in zip(axes, (READ, QUALITY), strict=True):
        axis.plot(curve.psnr_db, curve[list(names)], "o-", label=list(names))
        axis.axhline(0.95, color="0.6", lw=0.8)
        axis.set(xlabel="PSNR, dB", ylabel="share of the originals' score")
        axis.legend(fontsize=7)
    low = curve.loc[curve.psnr_db.idxmin()]
    kept = low[list(READ)].fillna(0)
    finding = (
        f"At {low.psnr_db:.1f} dB, the lowest, '{kept.idxmax()}' keeps {kept.max():.0%} of what the judge read in the "
        f"originals and '{kept.idxmin()}' {kept.min():.0%} (left). Right: quality dimensions; smoothness and flicker "
        "can gain from blur."
    )
    return FigureResult(fig, finding, paper_item="Table 3, R2.2", data=scores)


def generation_figure(per_vae: pd.DataFrame) -> FigureResult:
    """Fréchet distance of generated clips against the codec's PSNR; `OneEach.table`."""
    fig, axis = plt.subplots(figsize=(6.5, 3.6))
    for tokens, own in per_vae.groupby("tokens"):
        spread = [own.frechet - own.frechet_low, own.frechet_high - own.frechet]
        title = f"{tokens} tokens, {own.steps.iloc[0]} steps"
        axis.errorbar(own["PSNR, dB"], own.frechet, spread, fmt="o", capsize=3, label=title)
    _label(axis, per_vae.VAE, per_vae["PSNR, dB"], per_vae.frechet)
    axis.set(xlabel="PSNR of the VAE on captioned clips, dB", ylabel="Frechet distance of generated clips")
    axis.legend(fontsize=7)
    finding = (
        "Generated quality (lower is better, bars 95 % over clips) against the codec's PSNR at equal training compute: "
        "the number of tokens decides how many steps the denoiser can take."
    )
    return FigureResult(fig, finding, paper_item="Table 3, R2.2", data=per_vae)


def causality_figure(encoded: Tensor, decoded: Tensor) -> FigureResult:
    """Which latents a frame changes, (T, t) from `encoder_response`, and which frames a latent changes, (t, T)."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    panels = (
        (encoded.T, "frame changed", "latent step", "encoder: latents that change"),
        (decoded, "frame", "step changed", "decoder: frames that change"),
    )
    for axis, (response, x, y, title) in zip(axes, panels, strict=True):
        axis.imshow(response.numpy() > 0, aspect="auto", cmap="Blues", vmin=0, vmax=1.4)
        ticks = {"yticks": range(len(response)), "xticks": range(0, len(encoded), 4)}
        axis.set(xlabel=x, ylabel=y, title=title, **ticks)
        axis.grid(False)
    early = max(encoded[frame, : (frame + 7) // 8].abs().sum().item() for frame in range(len(encoded)))
    finding = (
        f"Blue where something changes. No latent step before the changed frame moves (largest change {early:g}), and "
        "no frame before a changed latent step."
    )
    return FigureResult(fig, finding)


def _label(axis: plt.Axes, names: pd.Series, x: pd.Series, y: pd.Series) -> None:
    """Write each name beside its point."""
    for name, *place in zip(names, x, y, strict=True):
        axis.annotate(name, place, xytext=(4, 5), textcoords="offset points", fontsize=7)
