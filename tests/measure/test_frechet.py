import numpy as np
import pytest

from mobivid_core.errors import ParameterError
from mobivid_core.measure.frechet import FrechetTarget, distance_interval, ratio_interval
from mobivid_core.measure.metrics import frechet_distance


def _rows(n: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + shift


@pytest.mark.parametrize("sizes", [(60, 50, 8), (60, 9, 30), (9, 60, 30), (20, 20, 100)])
def test_products_of_clips_agree_with_covariances(sizes: tuple[int, int, int]) -> None:
    """Two implementations, with more and with fewer clips than features."""
    n, m, width = sizes
    a, b = _rows(n, width, 0), _rows(m, width, 1, 0.3)
    # eigenvalues near zero lose half their digits in the root of the other way
    assert FrechetTarget(a, b).distance() == pytest.approx(frechet_distance(a, b), rel=1e-5)
    rows = np.random.default_rng(2).integers(n, size=n)
    assert FrechetTarget(a, b).distance(rows) == pytest.approx(frechet_distance(a[rows], b), rel=1e-5)


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


def test_mistakes_are_named() -> None:
    with pytest.raises(ParameterError, match="N, M >= 2"):
        FrechetTarget(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ParameterError, match="non-finite"):
        FrechetTarget(np.full((4, 3), np.nan), np.zeros((5, 3)))
    with pytest.raises(ParameterError, match="as many clips each"):
        ratio_interval(np.zeros((4, 3)), np.zeros((5, 3)), np.zeros((5, 3)))
