"""VAE: shapes, causality, the linear path's optimality, round trips."""

import json

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.models.vae_linear import to_clip, to_frames


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def clips():
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(12, 3, 9, 8, 8, generator=g)  # smooth clips: PCA has something to find
    return torch.nn.functional.interpolate(coarse, size=(17, 64, 64), mode="trilinear").clamp(-1, 1)


def _vae(ratio=(8, 32, 32), **sizes):
    torch.manual_seed(0)
    return MobiVidVAE(ratio=ratio, **({"latent_channels": 16, "width": 8} | sizes))


def _awake(vae):
    """Give the zero-initialised last layers weights, so that the nets take part."""
    for parameter in vae.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.05)
    return vae


@pytest.mark.parametrize("ratio", [(4, 8, 8), (4, 16, 16), (8, 16, 16), (4, 32, 32), (8, 32, 32)])
def test_shapes(ratio, clips):
    vae = _awake(_vae(ratio))
    expected = vae.latent_shape(17, 64, 64)
    assert expected == (16, 1 + 16 // ratio[0], 64 // ratio[1], 64 // ratio[2])
    latents = vae.encode_latents(clips[:2])
    assert latents.shape == (2, *expected)
    assert vae.decode_latents(latents).shape == clips[:2].shape


@pytest.mark.parametrize("changed", [0, 1, 8, 9, 16])
def test_encoder_codes_each_group_of_frames_alone(changed, clips, encoder_width=0):
    vae = _awake(_vae(encoder_width=encoder_width))
    other = clips[:1].clone()
    other[:, :, changed] += 0.5
    difference = (vae.encode_latents(clips[:1]) - vae.encode_latents(other)).abs().amax(dim=(0, 1, 3, 4))
    step = (changed + 7) // 8  # the latent step that holds the frame
    assert difference[step] > 0 and difference.count_nonzero() == 1


def test_decoder_is_causal(clips):
    vae = _awake(_vae())
    z = vae.encode_latents(clips[:1])
    other = z.clone()
    other[:, :, 1] += 1
    difference = (vae.decode_latents(z) - vae.decode_latents(other)).abs().amax(dim=(0, 1, 3, 4))
    assert torch.all(difference[:1] == 0) and torch.all(difference[1:] > 0)


def test_an_image_is_a_video_of_one_frame(clips):
    vae = _awake(_vae())
    alone = vae.encode_latents(clips[:2, :, :1])
    assert alone.shape == (2, 16, 1, 2, 2)
    torch.testing.assert_close(alone, vae.encode_latents(clips[:2])[:, :, :1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lapped", [False, True])
def test_linear_path_is_exact_on_clips_it_can_span(lapped):
    """Six patch patterns whose weights change linearly in time: 12 dimensions a group, coded by 16 channels."""
    g = torch.Generator().manual_seed(1)
    patterns = torch.randn(6, 3, 32, 32, generator=g) * 0.1
    start, slope = torch.randn(2, 24, 1, 2, 2, 6, generator=g)
    weights = start + slope * torch.linspace(0, 1, 17)[None, :, None, None, None]
    clips = torch.einsum("nthwk,kcyx->ncthywx", weights, patterns).reshape(24, 3, 17, 64, 64)
    vae = _vae(width=0, lapped=lapped)
    if lapped:  # the patterns of folded tokens
        clips = to_clip(vae.linear_decoder.lap.inverse(to_frames(clips)), 24)
    vae.fit_linear(clips)
    # float32 sums over 3072 pixels, and a pseudo-inverse over channels that carry nothing
    assert (vae(clips) - clips).abs().max() < 1e-3 * clips.abs().max()


def test_more_channels_never_reconstruct_worse(clips):
    errors = []
    for channels in (4, 16, 64):
        vae = _vae(latent_channels=channels, frame_coefficients=192, width=0)
        vae.fit_linear(clips)
        errors.append(float((vae(clips) - clips).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_statistics_normalise_and_invert(clips):
    vae = _vae()
    vae.fit_linear(clips)
    before = vae(clips).clamp(-1, 1)
    vae.fit_statistics(clips)
    latents = vae.encode_latents(clips)
    assert latents.square().mean() == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(vae.decode_latents(latents), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changed", [0, 1, 8, 9, 16])
def test_learnt_encoder_codes_each_group_of_frames_alone(changed, clips):
    test_encoder_codes_each_group_of_frames_alone(changed, clips, encoder_width=10)


def test_learnt_encoder_starts_at_three_percent(clips):
    vae = _vae(encoder_width=10)
    vae.fit_linear(clips)
    assert vae.encoder_net(clips).square().mean().sqrt() == pytest.approx(0.03, rel=0.1)
    assert vae.encoder_net(clips[:, :, :1]).shape == (12, 16, 1, 2, 2)


@pytest.mark.parametrize("patch", [8, 16])
def test_learnt_encoder_fits_other_ratios(patch, clips):
    latents = _vae((4, patch, patch), encoder_width=10).encode_latents(clips[:1])
    assert latents.shape == (1, 16, 5, 64 // patch, 64 // patch)


def test_energy_of_channels_through_the_whole_decoder(clips):
    """For a linear decoder the estimate must find what its weights say: 13 % is four standard errors of 192 places."""
    vae = _vae(width=0, latent_channels=8)
    vae.fit_linear(clips)
    first, rest = vae.linear_decoder.split.first.weight, vae.linear_decoder.split.rest.weight
    expected = ((first.square().sum((0, 2, 3)) + 2 * rest.square().sum((0, 2, 3))) / 3).sqrt()
    raw = vae.encode(clips).latent_dist.mode()
    torch.testing.assert_close(vae._channel_energy(raw), expected, rtol=0.13, atol=0)


def test_statistics_of_a_learnt_code_normalise(clips):
    vae = _awake(_vae(encoder_width=10))
    vae.fit_linear(clips)
    vae.fit_statistics(clips)
    latents = vae.encode_latents(clips)
    assert latents.square().mean() == pytest.approx(1, rel=0.1)
    assert 0.2 < latents.std((0, 2, 3, 4)).min() and latents.std((0, 2, 3, 4)).max() < 5


def test_a_config_older_than_overlap_loads_without_it(tmp_path, clips):
    vae = _awake(_vae(lapped=False))
    vae.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    old = json.loads(config.read_text())
    assert old.pop("lapped") is False and old.pop("encoder_width") == 0
    config.write_text(json.dumps(old))
    again = MobiVidVAE.from_pretrained(tmp_path)
    assert again.config.lapped is False and again.linear_encoder.lap is None
    assert torch.equal(vae.encode_latents(clips[:1]), again.encode_latents(clips[:1]))


@pytest.mark.parametrize("encoder_width", [0, 10])
def test_save_and_load_keeps_the_overlap(tmp_path, clips, encoder_width):
    vae = _awake(_vae(encoder_width=encoder_width))
    vae.save_pretrained(tmp_path)
    again = MobiVidVAE.from_pretrained(tmp_path)
    assert again.config.lapped and torch.equal(vae(clips[:1]), again(clips[:1]))


def test_save_and_load(tmp_path, clips):
    vae = _awake(_vae())
    vae.fit_statistics(clips)
    vae.save_pretrained(tmp_path)
    again = MobiVidVAE.from_pretrained(tmp_path)
    assert torch.equal(vae.encode_latents(clips[:1]), again.encode_latents(clips[:1]))


def test_bad_sizes_name_the_nearest_valid_one():
    with pytest.raises(ParameterError, match="nearest valid size is 17 frames of 128x96"):
        _vae().latent_shape(16, 120, 100)
    with pytest.raises(ParameterError, match="same power of two"):
        MobiVidVAE(ratio=(8, 32, 16))
