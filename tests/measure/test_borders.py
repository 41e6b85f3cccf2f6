"""Borders and sharpness on clips whose answer is known by arithmetic."""

import math

import numpy as np
import pytest
import torch

from mobivid_core.data.render import RenderedClips
from mobivid_core.errors import ParameterError
from mobivid_core.measure.borders import Faults, border_ratio, fault_table, sharpness, sharpness_ratio
from mobivid_core.measure.measures import ClipMeasures, measure
from mobivid_core.measure.trials import blurred, token_grid


def _ramp(slope: float, step: float, size: int = 64, patch: int = 32) -> torch.Tensor:
    """A diagonal ramp with an extra `step` at each token border, in both axes."""
    line = slope * torch.arange(float(size)) + step * (torch.arange(size) // patch)
    frame = line[:, None] + line[None, :]
    return frame.expand(1, 3, 5, size, size)


def test_planted_borders_are_read_exactly() -> None:
    """Neighbours differ by `slope` inside a token and by `slope + step` across a border."""
    slope, step = 0.004, 0.02
    clips = torch.cat([_ramp(slope, 0.0), _ramp(slope, step)])
    expected = (slope + step + 1e-4) / (slope + 1e-4)  # the guard against constant clips is on both sides
    assert border_ratio(clips).tolist() == pytest.approx([1.0, expected], rel=1e-3)


def test_the_axes_are_weighed_by_their_pixels() -> None:
    """Borders in one axis only, on frames twice as wide as high: a third of the border pixels show them."""
    slope, step = 0.004, 0.02
    rows = slope * torch.arange(64.0)[:, None] + slope * torch.arange(128.0)[None, :]
    clips = (rows + step * (torch.arange(64) // 32)[:, None]).expand(1, 3, 2, 64, 128)
    pairs = {"shown": 1 * 128, "plain": 3 * 64}
    across = slope + step * pairs["shown"] / sum(pairs.values())
    assert border_ratio(clips).item() == pytest.approx((across + 1e-4) / (slope + 1e-4), rel=1e-3)


def test_another_patch_looks_elsewhere() -> None:
    planted = _ramp(0.004, 0.02, patch=16)
    assert border_ratio(planted, 16).item() > 4 and border_ratio(planted, 32).item() > 4  # 32 is among the 16s
    assert border_ratio(planted, 20).item() < 1
    assert border_ratio(_ramp(0.004, 0.02, patch=32), 16).item() == pytest.approx((0.004 + 0.02 / 3) / 0.004, rel=0.03)


def test_constants_and_single_tokens_do_not_divide_by_zero() -> None:
    flat = torch.full((2, 3, 4, 64, 64), 0.3)
    assert border_ratio(flat).tolist() == [1.0, 1.0] and sharpness(flat).tolist() == [0.0, 0.0]
    assert math.isnan(border_ratio(flat[..., :32, :32])[0])
    assert sharpness_ratio(sharpness(flat), sharpness(flat))[0] == 0.0
    assert all(math.isfinite(x) for x in sharpness_ratio(torch.ones(3), torch.zeros(3)))


def test_sharpness_of_a_wave_follows_its_frequency() -> None:
    """The discrete Laplacian of sin(w x) is -(2 - 2 cos w) sin(w x); a ramp has none."""
    x = torch.arange(128.0)
    for cycles in (4, 16):
        w = 2 * math.pi * cycles / 128
        clip = torch.sin(w * x).expand(1, 3, 2, 128, 128)
        gain = (2 - 2 * math.cos(w)) ** 2
        assert sharpness(clip).item() == pytest.approx(gain * torch.sin(w * x)[1:-1].square().mean().item(), rel=1e-4)
    assert sharpness(_ramp(0.01, 0.0)).item() < 1e-12  # float32 rounding of a ramp


def test_blur_lowers_sharpness_and_a_grid_raises_borders(real: RenderedClips) -> None:
    assert (sharpness(blurred(real)) < 0.5 * sharpness(real.clips)).all()
    assert border_ratio(token_grid(real)).mean() > 1.5 * border_ratio(real.clips).mean()


def test_the_ratio_is_of_means_and_paired() -> None:
    """A codec that halves every clip's energy has the ratio one half, without any spread."""
    real = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.1
    assert sharpness_ratio(real / 2, real) == pytest.approx((0.5, 0.5, 0.5), rel=1e-6)
    ours, theirs = np.array([1.0, 1.0]), np.array([1.0, 3.0])
    assert sharpness_ratio(ours, theirs)[0] == 0.5  # not the mean of 1 and 1/3


def test_bad_input_is_refused() -> None:
    with pytest.raises(ParameterError, match="one energy a clip"):
        sharpness_ratio(torch.ones(3), torch.ones(2))
    with pytest.raises(ParameterError, match="expected clips"):
        border_ratio(torch.zeros(3, 4, 64, 64))
    with pytest.raises(ParameterError, match="two pixels"):
        border_ratio(torch.zeros(1, 3, 4, 64, 64), patch=1)
    with pytest.raises(ParameterError, match="3x3"):
        sharpness(torch.zeros(1, 3, 4, 2, 2))


def test_both_are_measured_with_or_without_quality(real: RenderedClips, judge) -> None:
    quick = measure(real.clips[:2], judge, quality=False)
    torch.testing.assert_close(quick.borders, border_ratio(real.clips[:2]))
    torch.testing.assert_close(quick.sharpness, sharpness(real.clips[:2]))
    both = ClipMeasures.join([quick, quick])
    assert both.borders.shape == both.sharpness.shape == (4,)


def test_versions_stand_beside_the_real_clips(real: RenderedClips) -> None:
    whole = Faults.of(real.clips)
    found = fault_table({"blurred": Faults.of(blurred(real)), "grid": Faults.of(token_grid(real))}, whole)
    rows = found.table.set_index("clips")
    assert rows.index.tolist() == ["real clips", "blurred", "grid"] and (rows["n"] == len(real.clips)).all()
    assert rows.loc["real clips", ["sharpness", "sharpness_low", "sharpness_high"]].tolist() == [1.0, 1.0, 1.0]
    assert rows.loc["blurred", "sharpness"] < 0.2 and rows.loc["grid", "border_ratio"] > 3
    assert found.intervals["grid"]["borders"][0] == rows.loc["grid", "border_ratio"]
    assert f"(blurred; real clips {rows.loc['real clips', 'border_ratio']:.2f})" in found.finding("blurred")
