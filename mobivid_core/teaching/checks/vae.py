"""Checks of exercise notebook 01: tokens and rate of a video VAE."""

from __future__ import annotations

import math
from collections.abc import Callable

from mobivid_core.deploy.counts import latent_grid
from mobivid_core.teaching.verdict import checked, run, wrong_if

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
