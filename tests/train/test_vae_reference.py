"""The reference VAE: same interface, starts exactly at PCA where it should, sees the crops that ours sees."""

import pytest
import torch

from mobivid_core.data.pool import VideoPool, to_bytes
from mobivid_core.errors import ParameterError
from mobivid_core.measure.reconstruction import reconstruct
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.models.vae_reference import LTXStyleVAE
from mobivid_core.train import vae as ours
from mobivid_core.train.vae_reference import train_ltx_style

WIDTHS = (8, 8, 8, 8)


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    coarse = torch.randn(6, 3, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(9, 64, 64), mode="trilinear").clamp(-1, 1)


@pytest.fixture(scope="module")
def pca(clips) -> MobiVidVAE:
    vae = MobiVidVAE(latent_channels=8, width=0)
    vae.fit_linear(clips)
    return vae.eval()


@torch.no_grad()
def test_the_latent_has_the_paper_ratio_and_statistics_invert(clips):
    torch.manual_seed(0)
    vae = LTXStyleVAE(8, WIDTHS).eval()
    assert vae.encode_latents(clips[:2]).shape == (2, 8, 2, 2, 2)
    before = reconstruct(vae, clips)
    vae.fit_statistics(clips)
    latents = vae.encode_latents(clips)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 1e-3 and latents.std() == pytest.approx(1, rel=0.05)
    torch.testing.assert_close(reconstruct(vae, clips), before, atol=1e-4, rtol=1e-4)  # float32 rescaling


def test_around_pca_it_starts_at_pca_and_leaves_it_alone(clips, pca):
    start = reconstruct(pca, clips)
    weight = pca.linear_encoder.space.weight.clone()
    torch.testing.assert_close(reconstruct(LTXStyleVAE(8, WIDTHS, pca), clips), start, atol=1e-4, rtol=1e-4)
    train_ltx_style(to_bytes(clips), channels=8, steps=1, pca=pca, widths=WIDTHS, batch=2, frames=9, progress=False)
    assert torch.equal(pca.linear_encoder.space.weight, weight), "training must not move the baseline"


def test_both_see_the_same_crops(clips, monkeypatch):
    drawn: list[torch.Tensor] = []
    draw = VideoPool.draw

    def noted(self, batch, frames, crop, generator, *, augment=True):
        out = draw(self, batch, frames, crop, generator, augment=augment)
        if augment:
            drawn.append(out)
        return out

    monkeypatch.setattr(VideoPool, "draw", noted)
    budget = {"channels": 8, "steps": 2, "batch": 2, "crop": 32, "frames": 9, "seed": 3, "progress": False}
    ours.train_vae(to_bytes(clips), ratio=(8, 32, 32), width=8, **budget)
    train_ltx_style(to_bytes(clips), widths=WIDTHS, **budget)
    assert len(drawn) == 4 and all(torch.equal(a, b) for a, b in zip(drawn[:2], drawn[2:], strict=True))


def test_another_linear_start_is_refused(clips):
    with pytest.raises(ParameterError, match="ratio"):
        LTXStyleVAE(8, WIDTHS, MobiVidVAE(ratio=(4, 8, 8), latent_channels=8, width=0))
