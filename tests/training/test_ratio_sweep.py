"""Both sweeps fix what they say, and one small denoiser per VAE gets equal compute."""

import pytest
import torch

from mobivid_core.data.render import render_clips
from mobivid_core.deploy.counts import dit_flops
from mobivid_core.training.denoisers import encoded, generated, small_sizes, steps_for, train_denoiser
from mobivid_core.training.pool import to_bytes
from mobivid_core.training.ratio_sweep import CHANNELS, FLOATS, sweep_table, train_sweep

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


def test_equal_compute_buys_steps_in_inverse_proportion():
    cheap, dear = (dit_flops(small_sizes(16), grid, 24)["total"] for grid in ((3, 4, 4), (5, 16, 16)))
    few, many = steps_for(dear, 1.0, 8), steps_for(cheap, 1.0, 8)
    assert many * cheap == pytest.approx(few * dear, rel=0.05)  # whole steps
    assert steps_for(dear, 1e-9, 8) == 1


def test_a_denoiser_trains_on_latents_and_generates_clips(points, drawn):
    point = points[1]
    data = encoded(point.vae, to_bytes(drawn.clips), drawn.labels)
    denoiser = train_denoiser(data, tflop=1e-4, batch=2)
    assert denoiser.tokens == 2 and denoiser.steps >= 1 and denoiser.loss > 0
    clips = generated(denoiser, point.vae, data, steps=2)
    assert clips.shape == drawn.clips.shape and clips.abs().max() <= 1
    # noise of a sample is drawn at once: batches change nothing but float32 sums
    torch.testing.assert_close(generated(denoiser, point.vae, data, steps=2, batch=2), clips, atol=1e-3, rtol=1e-3)
