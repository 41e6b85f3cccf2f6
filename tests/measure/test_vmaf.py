"""VMAF: order, not values; and a clear line where there is no FFmpeg."""

import subprocess

import pytest
import torch

from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.measure import reconstruction as module
from mobivid_core.measure.reconstruction import vmaf, vmaf_missing


@pytest.fixture
def clips() -> torch.Tensor:
    """Two smooth moving clips: VMAF's model knows film, not noise."""
    coarse = torch.randn(2, 3, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(9, 96, 96), mode="trilinear").mul(0.5).clamp(-1, 1)


@pytest.fixture(autouse=True)
def forget():
    vmaf_missing.cache_clear()
    yield
    vmaf_missing.cache_clear()


def test_vmaf_falls_with_blur(clips):
    """Identical clips score near 100 (the model's own ceiling), blurred ones less, more blur less still."""
    if vmaf_missing():
        pytest.skip(vmaf_missing())
    blurs = [torch.nn.functional.avg_pool3d(clips, (1, k, k), 1, (0, k // 2, k // 2)) for k in (5, 17)]
    itself, slightly, badly = (vmaf(own, clips) for own in (clips, *blurs))
    assert itself.shape == (2,) and (itself > 90).all()
    assert (slightly < itself).all() and (badly < slightly).all()


def test_other_shapes_are_refused(clips):
    with pytest.raises(ParameterError, match="one shape"):
        vmaf(clips, clips[:1])


def test_a_build_without_libvmaf_is_named(clips, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    listed = subprocess.CompletedProcess([], 0, stdout=" ..C scale  V->V  Scale the input video")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: listed)
    assert "built without libvmaf" in vmaf_missing()
    with pytest.raises(MobiVidError, match="without libvmaf"):
        vmaf(clips, clips)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    assert "pip install imageio-ffmpeg" in vmaf_missing()
