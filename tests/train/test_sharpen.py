"""Fine-tuning of the decoding net: what is trained, what comes back, what is resumed."""

import pytest
import torch

from mobivid_core.data.pool import to_bytes
from mobivid_core.data.render import render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.train import sharpen
from mobivid_core.train.sharpen import PatchCritic, PerceptualDistance, draw_triples, hinge

BUDGET = {"batch": 2, "crop": 64, "frames": 9, "warmup": 1, "watch_every": 1, "critic_width": 8, "progress": False}


@pytest.fixture(scope="module")
def clips():
    return render_clips("train", range(4), frames=9, size=64).clips


@pytest.fixture(scope="module")
def vae(clips):
    torch.manual_seed(0)
    vae = MobiVidVAE(latent_channels=8, width=8, encoder_width=8)
    with torch.no_grad():
        vae.fit_linear(clips)
        vae.fit_statistics(clips)
    return vae


def test_only_the_decoding_net_moves(vae, clips):
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    sharp, result = sharpen.sharpen_decoder(vae, to_bytes(clips), steps=4, learning_rate=2e-3, **BUDGET)
    assert all(torch.equal(before[k], v) for k, v in vae.state_dict().items()), "the VAE given must stay as it is"
    moved = {k for k, v in sharp.state_dict().items() if not torch.equal(before[k], v)}
    assert "decoder_net.out.weight" in moved and all(k.startswith("decoder_net.") for k in moved)
    assert all(p.requires_grad for p in sharp.parameters())
    assert [row["step"] for row in result.log] == [1, 2, 3, 4] and not result.ended
    assert result.log[0]["lost_db"] == 0 and all(
        torch.tensor(list(row.values())).isfinite().all() for row in result.log
    )


def test_an_interrupted_run_resumes_to_the_same_weights(vae, clips, tmp_path, monkeypatch):
    steps, follow = iter((False, False, True)), sharpen._Contest.follow

    def stop(contest, decay):  # the first thing that a step does
        if next(steps):
            raise KeyboardInterrupt
        follow(contest, decay)

    whole, _ = sharpen.sharpen_decoder(vae, to_bytes(clips), steps=4, **BUDGET)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sharpen._Contest, "follow", stop)
        sharpen.sharpen_decoder(vae, to_bytes(clips), steps=4, folder=tmp_path, **BUDGET)
    resumed, result = sharpen.sharpen_decoder(vae, to_bytes(clips), steps=4, folder=tmp_path, **BUDGET)
    for mine, theirs in zip(resumed.decoder_net.parameters(), whole.decoder_net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)  # one thread or two differ in the last digits
    assert [row["step"] for row in result.log] == [1, 2, 3, 4]


def test_a_run_that_ruins_the_picture_ends_with_the_last_good_average(vae, clips):
    sharp, result = sharpen.sharpen_decoder(
        vae, to_bytes(clips), steps=60, learning_rate=0.5, ema=0.0, budget_db=0.1, **BUDGET
    )
    assert "had lost" in result.ended and result.log[-1]["step"] < 60
    lost = sharpen._Contest(sharp, 8).look(clips, 32)["watched_db"] - result.log[0]["watched_db"]
    assert lost > -0.15 - 1e-3  # one and a half budgets


def test_a_loss_that_is_not_finite_ends_it_too(vae, clips, monkeypatch):
    monkeypatch.setattr(sharpen, "hinge", lambda real, fake: hinge(real, fake) * float("nan"))
    sharp, result = sharpen.sharpen_decoder(vae, to_bytes(clips), steps=20, **BUDGET)
    assert "not finite" in result.ended
    assert all(torch.equal(v, sharp.state_dict()[k]) for k, v in vae.state_dict().items())


def test_a_linear_vae_is_refused(clips):
    with pytest.raises(ParameterError, match="width 0"):
        sharpen.sharpen_decoder(MobiVidVAE(latent_channels=4, width=0), to_bytes(clips), steps=1)


def test_distance_grows_with_blur_and_is_zero_for_the_same(clips):
    distance, frames = PerceptualDistance(), clips[:, :, 0]
    blurred = [torch.nn.functional.avg_pool2d(frames, k, 1, k // 2, count_include_pad=False) for k in (1, 3, 5)]
    values = [float(distance(b, frames)) for b in blurred]
    assert values[0] == pytest.approx(0, abs=1e-6) and values[0] < values[1] < values[2]


def test_triples_are_neighbours_and_the_same_of_both():
    clips = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(2, 3, 9, 4, 4) + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1, 1)
    one, other = draw_triples(clips, clips + 1000, 3, torch.Generator().manual_seed(0))
    assert one.shape == (6, 3, 3, 4, 4) and torch.equal(one + 1000, other)
    assert (one.diff(dim=2) == 1).all()  # the third axis is time
    assert (one[:, 0, 0, 0, 0] >= 100).tolist() == [False, True] * 3


def test_critic_judges_places():
    critic = PatchCritic(8)
    triples = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = critic(triples)
    assert logits.shape == (2, 1, 8, 8)
    (slope,) = torch.autograd.grad(logits[0, 0, 4, 4], triples)
    rows = slope[0].abs().sum((0, 1, 3)).nonzero().flatten()
    assert 40 <= rows.max() - rows.min() + 1 <= 54 and not slope[1].any()


def test_the_seam_error_sees_steps_at_token_borders_only():
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand((2, 3, 5, 64, 96), generator=generator)
    wrong = torch.rand(clips.shape, generator=generator)
    rows, columns = (
        wrong[:, :, :, 32] - wrong[:, :, :, 31],
        torch.stack([wrong[..., i] - wrong[..., i - 1] for i in (32, 64)]),
    )
    expected = (rows.square().mean() + columns.square().mean()) / 2
    torch.testing.assert_close(sharpen.seam_error(clips + wrong, clips, 32), expected)
    inside = clips.clone()
    inside[:, :, :, 5:20, 40:50] += 1
    assert sharpen.seam_error(inside, clips, 32) == 0
    tokens = clips.clone()
    tokens[:, :, :, :32, :32] += 1  # a step of one along 32 of 96 and 32 of 64 pixels, one border of two
    torch.testing.assert_close(sharpen.seam_error(tokens, clips, 32), torch.tensor((1 / 3 + 1 / 4) / 2))


def test_the_dither_error_sees_what_repeats_from_block_to_block():
    clips = torch.zeros((1, 3, 1, 32, 32))
    dots = clips.clone()
    dots[..., ::4, ::4] = 1  # of 16 positions one is 1: the variance over positions is 1/16 - 1/256
    assert float(sharpen.dither_error(dots, clips)) == pytest.approx(1 / 16 - 1 / 256)
    assert sharpen.dither_error(clips + 0.5, clips) == 0
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    assert float(sharpen.dither_error(noise, clips)) == pytest.approx(
        1 / 9, rel=0.15
    )  # a ninth is left of what does not
