"""Both sweeps fix what they say, and one small denoiser per VAE gets equal compute."""

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.data.pool import to_bytes
from mobivid_core.data.render import render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.measure.intervals import difference
from mobivid_core.measure.judge import Judge
from mobivid_core.models.config import MOBILE, SERVER, SMOKE_SERVER
from mobivid_core.models.counts import dit_flops
from mobivid_core.phone.latent_costs import denoiser_costs
from mobivid_core.studies.denoisers import (
    OneEach,
    encoded,
    generated,
    one_each,
    small_sizes,
    steps_for,
    train_denoiser,
)
from mobivid_core.studies.ratio_sweep import (
    CHANNELS,
    FLOATS,
    equal_floats,
    motion_by_ratio,
    price,
    sweep_curves,
    sweep_table,
    train_sweep,
)

RATIOS = [(4, 8, 8), (8, 32, 32)]


@pytest.fixture(scope="module")
def drawn():
    return render_clips("train", range(6), frames=9, size=32)


@pytest.fixture(scope="module")
def points(drawn):
    pool = torch.cat([to_bytes(drawn.clips)] * 2)[:, :, [*range(9), *range(7, -1, -1)]]  # 17 frames, there and back
    return train_sweep(pool, RATIOS, like=((8, 32, 32), 16), width=8, steps=1, batch=2, crop=32)


def test_one_sweep_keeps_floats_per_pixel_and_the_other_channels(points):
    floats = [p.channels / (p.ratio[0] * p.ratio[1] * p.ratio[2]) for p in points if p.sweep == FLOATS]
    assert floats[0] == pytest.approx(floats[1], rel=1.0)  # 16 channels leave 4x8x8 half of one: rounded up to 1
    assert [p.channels for p in points if p.sweep == CHANNELS] == [16, 16]
    assert points[1].vae is points[3].vae, "a shared point is trained once"


def test_the_table_has_a_row_a_point(points, drawn):
    table = sweep_table(points, {"captioned": drawn.clips[:2]})
    assert table.tokens.tolist() == [48, 2, 48, 2] and table["latent floats"].tolist() == [48, 32, 768, 32]
    wide = table.set_index(["sweep", "ratio"])["captioned PCA, dB"]
    assert wide[CHANNELS, "4x8x8"] > wide[FLOATS, "4x8x8"]


def test_curves_prices_and_motion_have_a_row_or_a_curve_a_ratio(points, drawn):
    names = ["4x8x8", "8x32x32"]
    clips = drawn.clips[:2]
    curves = sweep_curves(points, clips)
    assert list(dict.fromkeys(curves.ratio)) == names and curves[curves.ratio == "8x32x32"].channels.max() == 16
    sweep = sweep_table(points, {"film": clips})
    priced = price(points, sweep, denoiser_costs(RATIOS, SERVER, MOBILE), SMOKE_SERVER, tuple(clips.shape[1:]))
    assert priced.ratio.tolist() == names and (priced["miniature denoiser, ms"] > 0).all()
    assert priced["server TFLOP per forward (paper scale, derived)"].is_monotonic_decreasing
    assert priced["on the front"].any() and len(equal_floats(points)) == 2
    still = clips[:, :, :1].expand(-1, -1, 33, -1, -1)
    moved = motion_by_ratio(points, still, frames=9)
    assert moved.ratio.tolist() == names and np.allclose(moved["cost of 4x, dB"], 0, atol=1e-4)


def test_equal_compute_buys_steps_in_inverse_proportion():
    cheap, dear = (dit_flops(small_sizes(16), grid, 24)["total"] for grid in ((3, 4, 4), (5, 16, 16)))
    few, many = steps_for(dear, 1.0, 8), steps_for(cheap, 1.0, 8)
    assert many * cheap == pytest.approx(few * dear, rel=0.05)  # whole steps
    assert steps_for(dear, 1e-9, 8) == 1


def test_a_denoiser_trains_on_latents_and_generates_clips(points, drawn):
    point = points[1]
    data = encoded(point.vae, to_bytes(drawn.clips), drawn.labels)
    denoiser = train_denoiser(data, tflop=1e-4, batch=2)
    assert denoiser.tokens == 2 and denoiser.steps >= 1
    clips = generated(denoiser, point.vae, data, steps=2)
    assert clips.shape == drawn.clips.shape and clips.abs().max() <= 1
    # noise of a sample is drawn at once: batches change nothing but float32 sums
    torch.testing.assert_close(generated(denoiser, point.vae, data, steps=2, batch=2), clips, atol=1e-3, rtol=1e-3)


def test_each_vae_gets_a_row_and_its_clips_are_read_one_by_one(points, drawn):
    judge, bytes_ = Judge(width=4).eval(), to_bytes(drawn.clips)
    codecs = {"wide": points[1].vae}
    found = one_each(codecs, (bytes_, drawn.labels), (bytes_, drawn.labels), judge, torch.randn(6, 64), tflop=1e-4)
    row = found.table.iloc[0]
    assert row["VAE"] == "wide" and row["channels"] == 16 and row["tokens"] == 2
    assert found.right["wide"].shape == (6,) and row["all"] == pytest.approx(found.right["wide"].mean())
    with pytest.raises(ParameterError, match="equal tokens"):
        found.channels_gain()


def test_the_gain_of_fewer_channels_is_paired_and_at_equal_tokens():
    """The row of more tokens plays no part, however good; of two narrower ones the better is taken."""
    table = pd.DataFrame(
        {"VAE": ["fine", "z16", "z32", "z128"], "channels": [4, 16, 32, 128], "tokens": [768, 48, 48, 48]}
    )
    right = {
        "fine": np.ones(8),
        "z16": np.repeat([1.0, 0.0], [2, 6]),
        "z32": np.repeat([1.0, 0.0], [6, 2]),
        "z128": np.repeat([1.0, 0.0], [4, 4]),
    }
    found = OneEach(table.assign(all=[right[name].mean() for name in table["VAE"]]), right)
    best, wide, (gain, low, high) = found.channels_gain()
    assert (best, wide, gain) == ("z32", "z128", 0.25) and low < gain < high
    assert found.channels_gain()[2] == difference(right["z32"], right["z128"])
    assert "z32 against z128: +0.25" in found.finding(0.15)
