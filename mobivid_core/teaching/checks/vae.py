"""Checks of notebook 01's exercises: tokens, where attention's square takes over, rate and distortion of PCA."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mobivid_core.teaching.verdict import checked, run, wrong_if

_TOLERANCE = 1e-6  # relative; all of it is closed-form arithmetic in double precision
_KEPT = 16  # axes kept in the check of the PSNR, and twice as many


@checked
def tokens(tokens_of: Callable[[int, int, int, tuple[int, int, int]], int]) -> str:
    """`tokens_of(frames, height, width, ratio)`."""
    image, clip = run(tokens_of, 1, 64, 96, (8, 32, 32)), run(tokens_of, 17, 128, 128, (8, 32, 32))
    wrong_if(image == 0, "an image is a clip of one frame, and yours has no token at all: how is the first frame coded?")
    wrong_if(clip == 17 / 8 * 16 or clip == 2 * 16, "the first frame has a latent step of its own; the others share theirs.")
    wrong_if(clip == 3 * 16 * 128, "channels make a token wider, not more numerous.")
    wrong_if(clip == 3, "that is the time axis only: height and width are divided as well.")
    for frames, height, width, ratio in ((1, 64, 96, (8, 32, 32)), (17, 128, 128, (8, 32, 32)), (49, 384, 512, (4, 8, 8))):
        expected = (1 + (frames - 1) // ratio[0]) * (height // ratio[1]) * (width // ratio[2])
        got = run(tokens_of, frames, height, width, ratio)
        shape = f"{frames} x {height} x {width} at {'x'.join(map(str, ratio))}"
        wrong_if(got != expected, f"the count for {shape} is {'too large' if got > expected else 'too small'}.")
    return "tokens are counted right, an image's included. Now look at how fast they fall with the ratio."


@checked
def crossover(tokens_at_equal_cost: float, parameters: float, width: int, blocks: int) -> str:
    """Tokens at which the attention scores cost as much as all linear layers."""
    n = float(tokens_at_equal_cost)
    linear, scores = 2 * n * parameters, 4 * n**2 * width * blocks
    wrong_if(n <= 0, "a number of tokens is positive.")
    share = scores / linear
    if abs(share - blocks) < 1e-3 * blocks:
        wrong_if(True, "the scores are computed in every block: one factor of the formula is missing.")
    wrong_if(abs(share - 2) < 1e-3 or abs(share - 0.5) < 1e-3, "a factor of two went astray: both terms have one of their own.")
    wrong_if(
        abs(share - 1) > 1e-3,
        f"put your number into both terms: the scores then cost {share:.3g} times the linear layers, and the exercise asks "
        "for equal cost.",
    )
    return (
        f"at {n:,.0f} tokens both terms are equal. Compare with the counts at 4x8x8 and at 8x32x32: they lie on different "
        "sides."
    )


@checked
def pca_psnr(psnr_db: Callable[[np.ndarray, int], float], spectrum: np.ndarray) -> str:
    """`psnr_db(spectrum, kept)`: PSNR of a block's PCA code from the variances of its axes (values lie in [-1, 1])."""
    dims, kept = len(spectrum), _KEPT
    error = spectrum[kept:].sum() / dims
    expected = 10 * np.log10(4 / error)
    got = float(run(psnr_db, spectrum, kept))
    slip = {
        "you summed what stays rather than what goes: an axis that is kept causes no error.": spectrum[:kept].sum() / dims,
        "the error is per pixel value: a block has many of them.": spectrum[kept:].sum(),
        "the mean is over all values of a block, not over the axes that were dropped.": spectrum[kept:].mean(),
    }
    for why, mse in slip.items():
        wrong_if(abs(got - 10 * np.log10(4 / mse)) < 1e-6, why)
    wrong_if(abs(got - 10 * np.log10(1 / error)) < 1e-6, "values in [-1, 1] have a peak-to-peak range other than 1.")
    wrong_if(abs(got - expected / 2) < 1e-6 or abs(got - 2 * expected) < 1e-6, "decibels of a *squared* error: check the factor.")
    wrong_if(got < 0, "a negative PSNR here: is the fraction upside down?")
    wrong_if(abs(got - expected) > _TOLERANCE * abs(expected), f"off by {abs(got - expected):.2f} dB with {kept} axes kept.")
    more = float(run(psnr_db, spectrum, 2 * kept))
    wrong_if(more <= got, "twice the channels must not make it worse: is `kept` used?")
    return f"one fit gives the whole curve: doubling the channels from {kept} gains {more - got:.1f} dB on these shots."
