"""Costs of a ratio: the paper's token counts, quadratic scores, and a front that nothing beats."""

import pytest

from mobivid_core.models.config import MOBILE, SERVER, SMOKE_SERVER
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.latent_costs import (
    decoder_seconds,
    denoiser_costs,
    denoiser_seconds,
    pareto,
)
from mobivid_core.phone.turns import alternating_seconds

RATIOS = [(4, 8, 8), (8, 16, 16), (8, 32, 32)]


def test_tokens_and_shares_of_the_paper_clip():
    table = denoiser_costs(RATIOS, SERVER, MOBILE).set_index("ratio")
    assert table.tokens.to_dict() == {"4x8x8": 39_936, "8x16x16": 5_376, "8x32x32": 1_344}
    assert table["server TFLOP per forward"]["8x32x32"] == pytest.approx(4.9, abs=0.05)
    # 40 guided steps are 80 forward passes
    per_clip, forward = table["server TFLOP per clip (40 steps, guided)"], table["server TFLOP per forward"]
    assert (per_clip / forward).tolist() == pytest.approx([80] * 3)
    stored = table["with stored scores, MB"] - table["mobile activations, MB"]
    assert stored["4x8x8"] / stored["8x32x32"] == pytest.approx((39_936 / 1_344) ** 2)


def test_calls_take_turns():
    order = []
    seconds = alternating_seconds({name: lambda name=name: order.append(name) for name in "ab"}, repeats=2)
    assert order == list("ababab") and set(seconds) == {"a", "b"}
    assert all(len(own) == 2 and min(own) >= 0 for own in seconds.values())


def test_every_latent_and_decoder_is_timed():
    assert set(denoiser_seconds(SMOKE_SERVER, {"a": (4, 2, 2, 2), "b": (8, 1, 2, 2)}, repeats=1)) == {"a", "b"}
    vaes = {"4x8x8": MobiVidVAE(ratio=(4, 8, 8), latent_channels=4, width=8)}
    assert decoder_seconds(vaes, (3, 5, 16, 16), repeats=1)["4x8x8"] > 0


def test_the_front_holds_what_nothing_beats():
    assert pareto([1, 2, 3, 3], [10, 12, 11, 12]) == [True, True, False, False]
    assert pareto([1, 1], [10, 10]) == [True, True]
