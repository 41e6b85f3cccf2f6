"""Tables of notebook 01 with their findings: what compression saves, what it costs, and what the judge still reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from torch import Tensor

from mobivid_core.data.captions import ClipLabel
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.reconstruction import masked_psnr, paired_gain, summarise, vmaf_missing
from mobivid_core.measure.subscores import thresholds
from mobivid_core.models.counts import Grid
from mobivid_core.phone.references import light_decoder_counts, ltx_decoder_counts
from mobivid_core.published import claim, vaes
from mobivid_core.show.outcome import TableResult

#: Rows of the quality table: our main VAE, and codecs trained side by side at one short budget.
MAIN, PCA, SHORT = "main VAE", "PCA", "ours, same budget"
LTX, LTX_PCA = "LTX-style, same steps (not comparable)", "LTX-style from PCA, same steps (not comparable)"
#: Columns of several tables.
TIME, FILM_PSNR = "miniature denoiser, ms", "film PSNR, dB"


def cost_table(cost: pd.DataFrame) -> TableResult:
    """Tokens and FLOPs of the paper-scale denoiser at each ratio; from `denoiser_costs`."""
    first, last = cost.iloc[0], cost.iloc[-1]
    saved = first["server TFLOP per forward"] / last["server TFLOP per forward"]
    finding = (
        f"From {first.ratio} to {last.ratio} tokens fall {first.tokens / last.tokens:.1f} times and the cost of a "
        f"forward pass {saved:.0f} times, because attention scores grow with the square of the tokens."
    )
    return TableResult(cost, finding, "derived", "Table 3")


def published_table() -> TableResult:
    """Published ratios and channels of other VAEs; none was measured here."""
    known = vaes()
    known["pixel values per latent float"] = 3 * known.time * known.height * known.width / known.latent_channels
    sixteen = (known.latent_channels == 16).sum()
    finding = f"{sixteen} of {len(known)} published VAEs use 16 channels; those at 8x32x32 use 128."
    return TableResult(known, finding, "third-party")


def sweep_result(sweep: pd.DataFrame) -> TableResult:
    """Both ratio sweeps on held-out clips; from `sweep_table`."""
    psnr = sweep.set_index("ratio").groupby("sweep")[FILM_PSNR]
    spans = psnr.max() - psnr.min()
    finding = (
        f"At equal latent floats the ratios lie within {spans['equal floats']:.1f} dB on held-out film (best "
        f"{psnr.idxmax()['equal floats']}); at equal channels they span {spans['equal channels']:.1f} dB."
    )
    return TableResult(sweep, finding, paper_item="Table 3")


def priced_table(priced: pd.DataFrame) -> TableResult:
    """The ratios with their measured times; from `price`."""
    first, last = priced.iloc[0], priced.iloc[-1]
    finding = (
        f"From {first.ratio} to {last.ratio} the miniature denoiser's measured pass gets "
        f"{first[TIME] / last[TIME]:.0f} times faster; on the front of quality against time: "
        f"{', '.join(priced.ratio[priced['on the front']])}."
    )
    return TableResult(priced, finding, paper_item="Table 3")


def decoder_table(grid: Grid, pixels: int) -> TableResult:
    """Our decoder counted beside LTX-Video's at the same ratio, on a clip of so many `pixels` in all frames."""
    ours, theirs = "ours, width 256 (assumed)", "LTX-Video (diffusers' defaults)"
    counts = {ours: light_decoder_counts(grid), theirs: ltx_decoder_counts(grid)}
    rows = [
        {"decoder": name, "million parameters": c.params / 1e6, "TFLOP per clip": c.flops / 1e12,
         "kFLOP per pixel": c.flops / pixels / 1e3, "largest activation, MB": c.peak_bytes / 1e6}
        for name, c in counts.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    light, heavy = table["kFLOP per pixel"]
    finding = (
        f"Our decoder takes {light:.0f} kFLOP a pixel, LTX-Video's {heavy:.0f}: {heavy / light:.1f} times as many. "
        "Cheaper is not as good: neither is trained here at this scale."
    )
    return TableResult(table, finding, "derived")


def quality_table(on_film: Mapping[str, pd.DataFrame]) -> TableResult:
    """The main VAE and its references on held-out film: per-clip measures of the codecs named at the top."""
    table = summarise(on_film, ["psnr_db", "motion_error"], ["ssim", "ms_ssim", "vmaf"])
    over_pca, over_ltx = paired_gain(on_film[MAIN], on_film[PCA]), paired_gain(on_film[SHORT], on_film[LTX])
    built = paired_gain(on_film[SHORT], on_film[LTX_PCA])
    finding = (
        f"Held-out film at 8x32x32: the main VAE reaches {on_film[MAIN].psnr_db.mean():.1f} dB, {over_pca[0]:+.2f} "
        f"dB against PCA. At the same short budget ours gains {over_ltx[0]:+.1f} dB over the LTX-style VAE, but only "
        f"{built[0]:+.2f} dB [{built[1]:+.2f}, {built[2]:+.2f}] once that starts from PCA too. {vmaf_missing()}"
    )
    return TableResult(table.rename(columns={"name": "codec"}), finding)


def by_data_table(main: Mapping[str, pd.DataFrame], pca: Mapping[str, pd.DataFrame]) -> TableResult:
    """Main VAE and PCA on each kind of clips, "film" and "captioned" among them: per-clip measures of each."""
    columns = ["psnr_db", "ssim", "motion_error"]
    rows = [summarise(own, columns).assign(codec=name) for name, own in ((PCA, pca), (MAIN, main))]
    captioned, film = (paired_gain(main[data], pca[data])[0] for data in ("captioned", "film"))
    finding = f"The main VAE gains {captioned:+.1f} dB over PCA on captioned clips and {film:+.1f} dB on film."
    return TableResult(pd.concat(rows).rename(columns={"name": "data"}), finding)


def paced(by_speed: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Measures of the same moments at several speeds, with the amount of motion; from `by_speeds`."""
    return summarise(by_speed, ["psnr_db", "motion_error"], ["change_per_frame"])


def speed_table(by_speed: Mapping[str, pd.DataFrame]) -> TableResult:
    """The same moments at several speeds; from `by_speeds`, with "0x" and "1x"."""
    drop = by_speed["0x"].psnr_db - by_speed["1x"].psnr_db
    finding = (
        f"Freezing a shot gains {drop.mean():.1f} dB over normal speed ({len(drop)} held-out shots): "
        f"{(10 ** (-drop / 10)).mean():.0%} of the squared error remains without any motion."
    )
    return TableResult(paced(by_speed).rename(columns={"name": "speed"}), finding)


def motion_by_ratio_table(by_ratio: pd.DataFrame) -> TableResult:
    """What motion costs at each ratio; from `motion_by_ratio`."""
    cost = by_ratio.set_index("ratio")["cost of 4x, dB"]
    finding = (
        f"The same moments lose {cost.max():.1f} dB at {cost.idxmax()} and {cost.min():.1f} dB at {cost.idxmin()} when "
        "played at 4x instead of frozen."
    )
    return TableResult(by_ratio, finding, paper_item="Table 3, R1.1")


def regions_table(rebuilt: Tensor, clips: Tensor, masks: Tensor, labels: Sequence[ClipLabel]) -> TableResult:
    """Mean PSNR of still and of moving clips (N, 3, T, H, W) inside the object, where `masks` are True, and outside."""
    inside, outside = masked_psnr(rebuilt, clips, masks), masked_psnr(rebuilt, clips, ~masks)
    content = ["still" if label.motion == "still" else "moving" for label in labels]
    each = pd.DataFrame({"content": content, "object": inside.numpy(), "background": outside.numpy()})
    grouped = each.groupby("content")[["object", "background"]].mean().assign(clips=each.content.value_counts())
    apart = (outside - inside).nanmean()
    finding = f"PSNR inside the object is {apart:.1f} dB below that of the background (all clips)."
    return TableResult(grouped.reset_index(), finding)


def judge_table(read: Mapping[str, Mapping[str, Tensor]]) -> TableResult:
    """What the judge reads of "originals" and "reconstructions": {attribute: (N,) bool, right or not} of each."""
    shares = {clips: {k: v.float().mean().item() for k, v in own.items()} for clips, own in read.items()}
    table = pd.DataFrame(shares).rename_axis("attribute").reset_index()
    finding = f"The judge reads all attributes right in {shares['reconstructions']['all']:.0%} of reconstructions."
    return TableResult(table, finding)


def subscores_table(scores: pd.DataFrame) -> TableResult:
    """Every sub-score of every version; from `subscores`, the originals first."""
    worse = scores["all"].iloc[1:]
    finding = (
        f"From {scores.psnr_db.min():.1f} to {scores.psnr_db.max():.1f} dB the share of clips read right in all "
        f"attributes goes from {worse.min():.0%} to {worse.max():.0%}."
    )
    return TableResult(scores, finding, paper_item="Table 3, R2.2")


def psnr_needed_table(scores: pd.DataFrame) -> TableResult:
    """PSNR at which each sub-score keeps 95 % of the originals' value; from `subscores`."""
    reach = thresholds(scores[scores.version != MAIN])
    needed = reach.dropna().sort_values("psnr_db_needed").set_index("sub-score").psnr_db_needed
    told = ", ".join(f"{name} {db:.1f} dB" for name, db in needed.items()) or "none crossed"
    finding = f"PSNR at which each sub-score keeps 95 % of the originals' value: {told}; blank: never crossed."
    return TableResult(reach, finding, paper_item="Table 3, R2.2")


def generation_table(per_vae: pd.DataFrame, floor: float, gain: str) -> TableResult:
    """Table of `OneEach`; `floor` is the Fréchet distance of real clips from others, `gain` a sentence on channels."""
    same = per_vae[per_vae.tokens == per_vae.tokens.min()]
    order, order_same = (
        float(spearmanr(own["PSNR, dB"], -own.frechet).statistic) if len(own) > 1 else np.nan for own in (per_vae, same)
    )
    best = per_vae.loc[per_vae.frechet.idxmin()]
    finding = (
        f"{best.VAE} generates closest to real clips (Frechet {best.frechet:.0f} "
        f"[{best.frechet_low:.0f}, {best.frechet_high:.0f}], real clips {floor:.0f}). Rank correlation of PSNR with "
        f"generated quality: {order:+.2f} over {len(per_vae)} VAEs, {order_same:+.2f} over {len(same)} of equal tokens"
        f". {gain}"
    )
    return TableResult(per_vae, finding, paper_item="Table 3, R2.2")


def paper_table(ratio: Grid, tokens: int, psnr_db: Interval, kflop: float) -> TableResult:
    """The paper's VAE, of which only the ratio is known, beside ours: ratio, tokens of a 49x512x384 clip, the
    miniature's PSNR on held-out film, and kFLOP per pixel of our decoder."""
    known = claim("C19")
    rows = [
        (known.claim, known.value, known.evidence, "x".join(map(str, ratio)), "assumed", "same ratio, chosen to match"),
        ("tokens of a 49x512x384 clip", None, None, f"{tokens:,}", "derived", "follows from the ratio"),
        ("PSNR, dB", None, None, f"{psnr_db.value:.1f} (miniature)", "measured",
         "not comparable: other clips, other size"),
        ("decoder, kFLOP per pixel", None, None, f"{kflop:.0f}", "derived",
         "the paper's is unknown; LTX-Video's counted beside it"),
    ]  # fmt: skip
    names = ["item", "paper", "paper's evidence", "ours", "ours' evidence", "verdict"]
    finding = "The paper's ratio beside ours; its reconstruction numbers are not known to us."
    return TableResult(pd.DataFrame(rows, columns=names), finding, "third-party", "Table 3")
