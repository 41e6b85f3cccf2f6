import numpy as np
import pytest
import torch

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.errors import ParameterError
from mobivid_core.measure.motion import contrast_plane, flow_field, measure_motion, temporal_flickering, warp


def _texture(size: int = 96) -> np.ndarray:
    import cv2

    rough = np.random.default_rng(0).random((size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 3)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def _sliding(step: int, frames: int = 9, size: int = 64) -> torch.Tensor:
    """A textured scene that moves `step` pixels a frame to the left, (1, 3, T, H, W)."""
    image = _texture()
    views = [image[:size, i * step : i * step + size] for i in range(frames)]
    return torch.from_numpy(np.stack(views)).permute(3, 0, 1, 2)[None] * 2 - 1


def test_flow_finds_a_known_translation() -> None:
    clip = _sliding(2)
    planes = contrast_plane(((clip[0] + 1) / 2).permute(1, 2, 3, 0).numpy())
    flow = flow_field(planes[0], planes[1])[16:-16, 16:-16]
    assert flow[..., 0].mean() == pytest.approx(-2, abs=0.1)  # Farneback's own error on smooth texture
    assert flow[..., 1].mean() == pytest.approx(0, abs=0.1)


def test_an_object_as_bright_as_its_background_is_still_seen_to_move() -> None:
    """Red and green of one luminance: in grey there would be nothing to follow."""
    clip = torch.zeros(1, 3, 9, 64, 64)
    clip[:, 1] = 0.299 / 0.587  # the luminance of a full red
    for i in range(9):
        clip[:, :, i, 20:44, 8 + 3 * i : 32 + 3 * i] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    found = measure_motion(clip * 2 - 1)
    assert found.dynamic == 1 and VOCABULARY["motion"][found.action] == "right"


def test_moving_clips_move_and_still_ones_do_not(real) -> None:
    """Against what was rendered: every clip but the still ones is dynamic, and freezing any makes it static."""
    moves = torch.tensor([label.motion != "still" for label in real.labels])
    found = measure_motion(real.clips).dynamic.bool()
    assert (found == moves).float().mean() > 0.93  # 256 other clips: 0.99
    assert not measure_motion(real.clips[:, :, :1].expand_as(real.clips)).dynamic.any()


def test_smoothness_knows_the_order_of_frames(real) -> None:
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    moves = [i for i, label in enumerate(real.labels) if label.motion != "still"]
    straight, jumbled = (measure_motion(c).smoothness for c in (real.clips[moves], real.clips[moves][:, :, order]))
    assert straight.min() > 0.95 and (jumbled < straight).all()


def test_warping_back_by_the_flow_restores_the_frame() -> None:
    image = _texture()[:64, :64]
    flow = np.zeros((64, 64, 2), np.float32)
    flow[..., 0] = 3
    assert np.allclose(warp(image, flow)[:, :-3], image[:, 3:], atol=1e-6)  # whole pixels: no interpolation


def test_motion_measures_move_as_they_should() -> None:
    moving = _sliding(2)
    frozen = moving[:, :, :1].expand_as(moving)
    order = [4, 0, 7, 2, 8, 1, 5, 3, 6]
    shuffled = moving[:, :, order]
    real, still, jumbled = (measure_motion(x) for x in (moving, frozen, shuffled))
    assert real.dynamic == 1 and still.dynamic == 0
    assert still.smoothness > 0.999 > jumbled.smoothness and real.smoothness > jumbled.smoothness
    assert still.warping_error < 1e-3 and real.warping_error < jumbled.warping_error


def test_flicker_is_vbenchs_formula() -> None:
    clip = torch.zeros(1, 3, 3, 4, 4)
    clip[:, :, 1] = 2 * 51 / 255  # neighbouring frames differ by 51 of 255
    assert temporal_flickering(clip).item() == pytest.approx((255 - 51) / 255, abs=1e-6)
    assert temporal_flickering(torch.zeros(1, 3, 3, 4, 4)).item() == 1


def test_noise_raises_flicker() -> None:
    clip = _sliding(1)
    assert temporal_flickering(clip + 0.2 * torch.randn(clip.shape)).item() < temporal_flickering(clip).item()


def test_two_frames_are_too_few() -> None:
    with pytest.raises(ParameterError, match="three frames"):
        measure_motion(torch.zeros(1, 3, 2, 32, 32))
    with pytest.raises(ParameterError, match="expected clips"):
        measure_motion(torch.zeros(3, 5, 32, 32))
