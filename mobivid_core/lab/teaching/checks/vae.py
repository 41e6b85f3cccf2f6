"""Checks of exercise notebook 01: tokens and rate of a video VAE, and the best linear codec."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mobivid_core.lab.teaching.verdict import checked, run, wrong_if
from mobivid_core.models.counts import latent_grid

#: (frames, height, width, ratio) of the trials.
CLIPS = (
    (1, 64, 64, (8, 32, 32)), (49, 384, 512, (8, 32, 32)), (17, 96, 160, (8, 32, 32)), (49, 384, 512, (4, 8, 8)),
)  # fmt: skip


@checked
def tokens(token_count: Callable[..., int]) -> str:
    """Tokens of a clip.

    Args:
        token_count: (frames, height, width, ratio) -> tokens.
    """
    for frames, height, width, ratio in CLIPS:
        given = f"a clip of {frames} x {height} x {width} at {'x'.join(map(str, ratio))}"
        found, right = (
            run(token_count, frames, height, width, ratio),
            math.prod(latent_grid(frames, height, width, ratio)),
        )
        if found == right:
            continue
        time, high, wide = ratio
        area = (height // high) * (width // wide)
        wrong_if(
            frames == 1, f"{given}: an image is a video of one frame, and needs as many tokens as one latent frame has."
        )
        wrong_if(
            math.isclose(found, frames / time * area)
            or found in (frames // time * area, math.ceil(frames / time) * area),
            f"{given}: you divided all frames by the ratio. The first frame is coded alone; only the "
            "others are grouped.",
        )
        wrong_if(found > right, f"{given}: too many. Does one of the three axes go uncompressed?")
        wrong_if(True, f"{given}: too few. Which axis is divided twice, or which frame is missing?")
    return "the first frame alone, the others in groups, for each patch of the picture."


@checked
def rate(values_per_token: int, values_per_number: float, equal_rate_channels: int) -> str:
    """Rate of 8x32x32 with 128 channels, and the channels that 4x8x8 with 16 is equal to.

    Args:
        values_per_token: Pixel values (of three colours) in one token's block.
        values_per_number: Pixel values for each number that is stored.
        equal_rate_channels: Channels at 8x32x32 for the rate of 4x8x8 with 16.
    """
    block = 3 * 8 * 32 * 32
    wrong_if(values_per_token == block // 3, "`values_per_token`: a pixel has three colour values.")
    wrong_if(
        values_per_token == block // 8,
        "`values_per_token`: that is one frame's patch; a token covers a group of frames.",
    )
    wrong_if(
        values_per_token != block,
        "`values_per_token`: multiply time x height x width of one token's block, and the colours.",
    )
    wrong_if(
        math.isclose(values_per_number, block),
        "`values_per_number`: a token is not one number; how many channels has it?",
    )
    wrong_if(math.isclose(values_per_number, 128 / block, rel_tol=1e-3), "`values_per_number` is upside down.")
    wrong_if(
        not math.isclose(values_per_number, block / 128, rel_tol=1e-3),
        "`values_per_number`: values in a block over its channels.",
    )
    wrong_if(
        equal_rate_channels == 16,
        "`equal_rate_channels`: with as many channels the coarser grid stores far fewer numbers.",
    )
    wrong_if(
        equal_rate_channels == 16 * 16,
        "`equal_rate_channels`: you counted the pixels of a patch; the tokens differ in time as well.",
    )
    wrong_if(
        equal_rate_channels != 16 * block // (3 * 4 * 8 * 8),
        "`equal_rate_channels`: find the values per number of 4x8x8 with 16 channels first, then ask for the same.",
    )
    return (
        "rate and tokens are two dials: equal rate, yet far fewer tokens. The transformer pays for "
        "tokens, not for channels."
    )


@checked
def linear(linear_psnr: Callable[..., float], enough: int, blocks: np.ndarray, wanted_db: float) -> str:
    """PSNR of the best linear codec, and how many numbers a block reach a given one.

    Args:
        linear_psnr: (blocks (N, D) in [-1, 1], numbers kept a block) -> dB.
        enough: The fewest numbers a block of `blocks` that reach `wanted_db`.
        blocks: (N, D) the exercise's blocks of film.
        wanted_db: What is asked for.
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
            psnr(_discarded(trial, centred=False)[numbers]): "what all blocks have in common needs no number: both "
            "sides know it. What is left to code?",
            psnr(errors[numbers + 1]): "one direction too many is kept.",
            psnr(errors[numbers - 1]): "one direction too few is kept.",
        }
        if math.isclose(found, psnr(right), rel_tol=1e-6):
            continue
        for slip, why in slips.items():
            wrong_if(math.isclose(found, slip, rel_tol=1e-6), f"`linear_psnr`: {why}")
        wrong_if(
            found > psnr(right), "`linear_psnr`: no linear codec is that good; is the error of all blocks counted?"
        )
        wrong_if(True, "`linear_psnr`: another linear codec does better with as many numbers.")
    reached = [psnr(max(error, 1e-30)) for error in _discarded(np.asarray(blocks))]
    wrong_if(not 0 <= enough < len(reached) or reached[enough] < wanted_db, f"`enough`: not yet {wanted_db:g} dB.")
    wrong_if(enough and reached[enough - 1] >= wanted_db, f"`enough`: fewer numbers reach {wanted_db:g} dB as well.")
    return "principal axes are the best linear codec: what they miss is the energy of the axes left out, nothing else."


def _discarded(blocks: np.ndarray, centred: bool = True, smallest: bool = False) -> list[float]:
    """Mean squared error of keeping 0, 1, 2, ... axes of blocks (N, D)."""
    rows = blocks - blocks.mean(0) if centred else blocks
    energy = np.linalg.svd(rows, compute_uv=False) ** 2 / rows.size
    energy = energy[::-1] if smallest else energy
    return [*(energy.sum() - np.concatenate([[0.0], energy.cumsum()])).clip(0)]
