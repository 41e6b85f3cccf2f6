"""Checks of exercise notebook 01: tokens and rate of a video VAE, and the best linear codec."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mobivid_core.lab.teaching.verdict import Wrong, checked, compare, run
from mobivid_core.models.counts import latent_grid

#: (frames, height, width, ratio) of the trials.
CLIPS = (
    (1, 64, 64, (8, 32, 32)), (49, 384, 512, (8, 32, 32)), (17, 96, 160, (8, 32, 32)), (49, 384, 512, (4, 8, 8)),
)  # fmt: skip


@checked
def tokens(token_count: Callable[..., int]) -> str:
    """Tokens of a clip: token_count(frames, height, width, ratio)."""
    for frames, height, width, ratio in CLIPS:
        given = f"a clip of {frames} x {height} x {width} at {'x'.join(map(str, ratio))}"
        found = run(token_count, frames, height, width, ratio)
        right = math.prod(latent_grid(frames, height, width, ratio))
        if found == right:
            continue
        time, high, wide = ratio
        area = (height // high) * (width // wide)
        if frames == 1:
            raise Wrong(f"{given}: an image is a video of one frame, and needs as many tokens as one latent frame has.")
        groups = (frames / time, frames // time, math.ceil(frames / time))
        if any(math.isclose(found, count * area) for count in groups):
            raise Wrong(f"{given}: you divided all frames by the ratio; the first frame is coded alone.")
        if found > right:
            raise Wrong(f"{given}: too many. Does one of the three axes go uncompressed?")
        raise Wrong(f"{given}: too few. Which axis is divided twice, or which frame is missing?")
    return "the first frame alone, the others in groups, for each patch of the picture."


@checked
def rate(values_per_token: int, values_per_number: float, equal_rate_channels: int) -> str:
    """Pixel values in a token's block at 8x32x32 and for each number stored with 128 channels; equal rate to 4x8x8."""
    block = 3 * 8 * 32 * 32
    compare(values_per_token, block, {
        block / 3: "`values_per_token`: a pixel has three colour values.",
        block / 8: "`values_per_token`: that is one frame's patch; a token covers a group of frames.",
    }, "`values_per_token`: multiply time x height x width of one token's block, and the colours.")  # fmt: skip
    compare(values_per_number, block / 128, {
        block: "`values_per_number`: a token is not one number; how many channels has it?",
        128 / block: "`values_per_number` is upside down.",
    }, "`values_per_number`: values in a block over its channels.", rel_tol=1e-3)  # fmt: skip
    compare(equal_rate_channels, 16 * block / (3 * 4 * 8 * 8), {
        16: "`equal_rate_channels`: with as many channels the coarser grid stores far fewer numbers.",
        16 * 16: "`equal_rate_channels`: you counted the pixels of a patch; the tokens differ in time as well.",
    }, "`equal_rate_channels`: ask for as many values per number as 4x8x8 with 16 channels has.")  # fmt: skip
    return "rate and tokens are two dials: at equal rate the transformer pays for far fewer tokens, not for channels."


@checked
def linear(linear_psnr: Callable[..., float], enough: int, blocks: np.ndarray, wanted_db: float) -> str:
    """PSNR of the best linear codec, linear_psnr(blocks (N, D) in [-1, 1], numbers kept a block) -> dB.

    `enough` are the fewest numbers a block with which the exercise's `blocks` (N, D) of film reach `wanted_db`.
    """
    rng = np.random.default_rng(0)
    trial = np.clip(0.4 + 0.3 * rng.standard_normal((60, 3)) @ rng.standard_normal((3, 8)) / 3, -1, 1)
    trial = np.clip(trial + 0.05 * rng.standard_normal(trial.shape), -1, 1)
    errors, psnr = _discarded(trial), lambda error: 10 * math.log10(4 / error)
    for numbers in (1, 2):
        found, right = run(linear_psnr, trial, numbers), errors[numbers]
        slips = {
            psnr(4 * right): "how large can the difference of two values in [-1, 1] become? That is the peak.",
            2 * psnr(right): "a ratio of squares: the decibel's factor is the other one.",
            psnr(right * trial.shape[1]): "the error is a mean over values, not over blocks.",
            psnr(_discarded(trial, smallest=True)[numbers]): "you kept the directions in which blocks differ least.",
            psnr(_discarded(trial, centred=False)[numbers]): "what all blocks have in common needs no number.",
            psnr(errors[numbers + 1]): "one direction too many is kept.",
            psnr(errors[numbers - 1]): "one direction too few is kept.",
        }
        otherwise = "another linear codec does better with as many numbers."
        if found > psnr(right):
            otherwise = "no linear codec is that good; is the error of all blocks counted?"
        compare(found, psnr(right), {k: f"`linear_psnr`: {v}" for k, v in slips.items()}, f"`linear_psnr`: {otherwise}")
    reached = [psnr(max(error, 1e-30)) for error in _discarded(np.asarray(blocks))]
    if not 0 <= enough < len(reached) or reached[enough] < wanted_db:
        raise Wrong(f"`enough`: not yet {wanted_db:g} dB.")
    if enough and reached[enough - 1] >= wanted_db:
        raise Wrong(f"`enough`: fewer numbers reach {wanted_db:g} dB as well.")
    return "principal axes are the best linear codec: what they miss is the energy of the axes left out, nothing else."


def _discarded(blocks: np.ndarray, centred: bool = True, smallest: bool = False) -> list[float]:
    """Mean squared error of keeping 0, 1, 2, ... axes of blocks (N, D)."""
    rows = blocks - blocks.mean(0) if centred else blocks
    energy = np.linalg.svd(rows, compute_uv=False) ** 2 / rows.size
    energy = energy[::-1] if smallest else energy
    return [*(energy.sum() - np.concatenate([[0.0], energy.cumsum()])).clip(0)]
