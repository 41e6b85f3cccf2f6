import numpy as np
import pytest
from scipy.linalg import sqrtm

from mobivid_core.errors import ParameterError
from mobivid_core.measure.frechet import (
    FrechetTarget,
    distance_interval,
    excess_ratio_interval,
    frechet_distance,
    ratio_interval,
)


def _rows(n: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + shift


def _by_covariances(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula; the root's trace from the eigenvalues of the symmetric A^(1/2) B A^(1/2)."""
    cov_a, cov_b = (np.cov(x, rowvar=False) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap


@pytest.mark.parametrize("sizes", [(60, 50, 8), (60, 9, 30), (9, 60, 30), (20, 20, 100)])
def test_products_of_clips_agree_with_covariances(sizes: tuple[int, int, int]) -> None:
    """Two implementations, with more and with fewer clips than features."""
    n, m, width = sizes
    a, b = _rows(n, width, 0), _rows(m, width, 1, 0.3)
    # eigenvalues near zero lose half their digits in the root of the other way
    assert FrechetTarget(a, b).distance() == pytest.approx(_by_covariances(a, b), rel=1e-5)
    rows = np.random.default_rng(2).integers(n, size=n)
    assert FrechetTarget(a, b).distance(rows) == pytest.approx(_by_covariances(a[rows], b), rel=1e-5)


def test_equal_sets_are_at_distance_zero_and_a_shift_at_its_square() -> None:
    a = _rows(40, 6, 0)
    assert FrechetTarget(a, a).distance() < 1e-9 * np.square(a).sum()
    assert FrechetTarget(a + 2, a).distance() == pytest.approx(6 * 4)


def test_the_interval_holds_the_value_and_narrows_with_clips() -> None:
    target = _rows(400, 4, 1)
    few, many = (distance_interval(target[:n] + 0.5, target, resamples=60) for n in (40, 400))
    assert few[1] <= few[0] <= few[2] and many[1] <= many[0] <= many[2]
    assert many[2] - many[1] < few[2] - few[1]


def test_ratios_mirror() -> None:
    target, near, far = _rows(100, 4, 1), _rows(80, 4, 1), _rows(80, 4, 1, 3.0)
    value, low, high = ratio_interval(far, near, target)
    assert 1 < low <= value <= high
    assert ratio_interval(near, far, target)[0] * value == pytest.approx(1)
    assert ratio_interval(near, near, target) == pytest.approx((1, 1, 1))
    a, b, floor = (frechet_distance(x, target) for x in (far, near + 1, near))
    assert value == pytest.approx(a / floor)  # of all clips, not the mean of the resamples
    assert excess_ratio_interval(far, near + 1, near, target).value == pytest.approx((a - floor) / (b - floor))


def test_mistakes_are_named() -> None:
    with pytest.raises(ParameterError, match="N, M >= 2"):
        FrechetTarget(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ParameterError, match="non-finite"):
        FrechetTarget(np.full((4, 3), np.nan), np.zeros((5, 3)))
    with pytest.raises(ParameterError, match="as many clips each"):
        ratio_interval(np.zeros((4, 3)), np.zeros((5, 3)), np.zeros((5, 3)))


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
