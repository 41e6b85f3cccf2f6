"""Latent dataset: captions belong to their clips, batches are reproducible, the cache is exact."""

import dataclasses

import pytest
import torch

from mobivid_core.data.captions import TRAIN_WORDINGS, caption
from mobivid_core.data.latents import WORDINGS_A_CLIP, latent_dataset, spread_wordings, with_captions
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.models.text import encode_text
from mobivid_core.models.vae import MobiVidVAE

SIZE = dict(frames=9, size=32)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = MobiVidVAE(latent_channels=4, width=4).eval()
    with torch.no_grad():
        vae.fit_linear(render_clips("train", range(6), **SIZE).clips)
    return vae


def test_latents_and_captions_belong_together(vae):
    data = latent_dataset(vae, split="val", count=5, start=2, progress=False, **SIZE)
    latents, text, mask = data.batch(torch.tensor([0, 3]))
    with torch.no_grad():
        expected = vae.encode_latents(render_clips("val", [2, 5], **SIZE).clips)
    torch.testing.assert_close(latents, expected, atol=2e-2, rtol=2e-3)  # kept as float16
    states, real = encode_text([caption(label_of("val", i)) for i in (2, 5)], max_length=text.shape[1])
    torch.testing.assert_close(text * mask[..., None], states * real[..., None], atol=2e-3, rtol=2e-3)
    assert torch.equal(mask, real)


def test_draws_depend_on_the_generator_alone(vae):
    data = latent_dataset(vae, split="val", count=6, progress=False, **SIZE)
    one, two = (data.draw(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=False))


def test_cache_is_used_and_keyed_by_the_vae(vae, tmp_path):
    request = dict(split="val", count=3, cache=tmp_path, progress=False, **SIZE)
    first = latent_dataset(vae, **request)
    assert torch.equal(first.latents, latent_dataset(vae, **request).latents)
    assert len(list(tmp_path.iterdir())) == 1
    other = MobiVidVAE(latent_channels=4, width=4).eval()
    latent_dataset(other, **request)
    assert len(list(tmp_path.iterdir())) == 2


def test_wordings_of_a_clip_are_its_own_and_other_trained_ones():
    for own in (0, 7, TRAIN_WORDINGS - 1):
        many = spread_wordings(own, TRAIN_WORDINGS)
        assert many[0] == own and sorted(many) == list(range(TRAIN_WORDINGS))  # all before any comes again
        assert spread_wordings(own, WORDINGS_A_CLIP) == many[:WORDINGS_A_CLIP]


def test_every_clip_is_worded_in_several_ways_of_its_own_label():
    labels = [label_of("train", i) for i in range(4)]
    data = with_captions(torch.zeros(4, 4, 1, 1, 1).half(), labels, wordings=3)
    assert data.caption_of.shape == (4, 3)
    for row, label in zip(data.caption_of, labels, strict=True):
        said = [caption(dataclasses.replace(label, wording=w)) for w in spread_wordings(label.wording, 3)]
        states, real = encode_text(said, max_length=data.mask.shape[1])
        assert torch.equal(data.mask[row], real)
        torch.testing.assert_close(data.text[row].float(), states, atol=2e-3, rtol=2e-3)  # kept as float16
