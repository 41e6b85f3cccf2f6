import numpy as np
import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.measure.diversity import pairwise_distance
from mobivid_core.measure.reconstruction import ms_ssim, psnr, ssim, temporal_difference_error


def _clips(seed: int = 0, size: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, 5, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_of_a_constant_error_is_exact() -> None:
    clips = torch.zeros(2, 3, 5, 8, 8)
    # error 0.2 against peak-to-peak 2: 20 log10(10) = 20 dB; float32 leaves 1e-5
    assert psnr(clips + 0.2, clips) == pytest.approx([20.0, 20.0], abs=1e-4)
    assert torch.isinf(psnr(clips, clips)).all()


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_similarity_is_one_for_itself_and_falls_with_noise(measure) -> None:
    clips = _clips()
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(1))
    itself, slightly, badly = (measure(clips + strength * noise, clips) for strength in (0, 0.1, 0.5))
    assert itself == pytest.approx([1.0, 1.0], abs=1e-5)  # float32 convolutions
    assert (slightly < itself).all() and (badly < slightly).all()


def test_temporal_difference_ignores_a_constant_shift() -> None:
    clips = _clips()
    assert temporal_difference_error(clips + 0.3, clips).max() < 1e-6  # float32 rounding
    assert (temporal_difference_error(clips.flip(2), clips) > 0.1).all()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ParameterError, match="one shape"):
        psnr(_clips(), _clips()[:1])


def test_pairwise_distance_of_a_known_triangle() -> None:
    assert pairwise_distance(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])) == pytest.approx((3 + 4 + 5) / 3)
    assert pairwise_distance(np.ones((4, 2))) == pytest.approx(0, abs=1e-12)
