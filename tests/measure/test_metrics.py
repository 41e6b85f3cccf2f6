import numpy as np
import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.measure.metrics import (
    frechet_distance,
    ms_ssim,
    pairwise_distance,
    psnr,
    ssim,
    temporal_difference_error,
)


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


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    mean, std_a, std_b = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 0.5]), np.array([0.5, 1.0, 1.5])
    a, b = (_exact_gaussian(rng, m, s) for m, s in ((np.zeros(3), std_a), (mean, std_b)))
    expected = np.square(mean).sum() + np.square(std_a - std_b).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)  # sample moments are exact: only rounding


def _exact_gaussian(rng: np.random.Generator, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly `mean` and diag(std^2)."""
    rows = rng.standard_normal((200, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    return rows * std + mean


def test_frechet_distance_agrees_with_the_matrix_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((60, 6)) @ rng.standard_normal((6, 6)), rng.standard_normal((50, 6)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    textbook = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(textbook, rel=1e-6)  # Schur against eigenvalues


def test_frechet_distance_is_finite_with_fewer_rows_than_features() -> None:
    rows = np.random.default_rng(2).standard_normal((5, 40))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)  # cancellation of traces of size 40
    assert frechet_distance(rows, rows + 1) == pytest.approx(40, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "N, M >= 2"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "N, M >= 2"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "non-finite"),
    ],
)
def test_frechet_distance_refuses_bad_features(a: np.ndarray, b: np.ndarray, text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        frechet_distance(a, b)


def test_pairwise_distance_of_a_known_triangle() -> None:
    assert pairwise_distance(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])) == pytest.approx((3 + 4 + 5) / 3)
    assert pairwise_distance(np.ones((4, 2))) == pytest.approx(0, abs=1e-12)
