"""One wide PCA codec stands for all narrower ones."""

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.measure.rate_distortion import channels_at, rate_distortion, truncated
from mobivid_core.measure.reconstruction import reconstruct
from mobivid_core.models.vae import MobiVidVAE


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    coarse = torch.randn(12, 3, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(9, 32, 32), mode="trilinear").clamp(-1, 1)


def codec(clips: torch.Tensor, channels: int) -> MobiVidVAE:
    vae = MobiVidVAE(ratio=(4, 8, 8), latent_channels=channels, width=0, frame_coefficients=48)
    vae.fit_linear(clips)
    return vae


def test_keeping_the_first_channels_is_the_narrower_codec(clips):
    wide = codec(clips, 24)
    for channels in (3, 10, 24):
        narrow = reconstruct(codec(clips, channels), clips)
        # float32 eigenvectors of one matrix, a pseudo-inverse on one side
        assert (truncated(wide, clips, channels) - narrow).abs().max() < 2e-3


def test_the_curve_rises_and_counts_its_floats(clips):
    curve = rate_distortion(codec(clips, 24), clips, (2, 6, 24))
    assert curve.psnr_db.is_monotonic_increasing
    assert curve.latent_floats.tolist() == [c * 3 * 4 * 4 for c in (2, 6, 24)]
    assert curve.pixels_per_float[0] == clips[0].numel() / (2 * 48)
    assert channels_at(curve, curve.psnr_db[1]) == pytest.approx(6)
    assert channels_at(curve, 200.0) != channels_at(curve, 200.0)  # NaN: never reached


def test_only_a_linear_codec_can_be_cut(clips):
    with pytest.raises(ParameterError, match="width 0"):
        truncated(MobiVidVAE(ratio=(4, 8, 8), latent_channels=4, width=8), clips, 2)
    with pytest.raises(ParameterError, match="25 channels or more"):
        truncated(codec(clips, 24), clips, 25)
