import pytest
import torch
import torch.nn.functional as F

from mobivid_core.errors import ParameterError
from mobivid_core.measure.quality import (
    ImagingReference,
    background_consistency,
    corner_pixels,
    imaging_statistics,
    subject_consistency,
)


def _blur(clips: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        clips = F.avg_pool3d(F.pad(clips, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
    return clips


def test_objects_leave_the_corners_free(real, others) -> None:
    masks = torch.cat([real.masks, others.masks])[:, None].float()
    assert corner_pixels(masks).mean() < 0.01  # the geometry that background consistency rests on


def test_background_consistency_sees_a_moving_background(real) -> None:
    still = background_consistency(real.clips)
    drifting = torch.stack([real.clips[:, :, i] + 0.05 * i for i in range(17)], 2)
    assert still.min() > 0.99
    # the first frame lies 0.425 away on average, the previous 0.05, both halved on [0, 1]
    assert background_consistency(drifting).mean() == pytest.approx(1 - (0.425 + 0.05) / 4, abs=0.01)


def test_subject_consistency_sees_an_object_that_changes(judge, real, others) -> None:
    clips = real.clips[:16]
    same = subject_consistency(clips, judge)
    changing = clips.clone()
    changing[:, :, 9:] = others.clips[:16, :, 9:]
    frozen = clips[:, :, :1].expand_as(clips)
    assert subject_consistency(frozen, judge).min() > 0.9999  # float32 cosine
    assert subject_consistency(changing, judge).mean() < same.mean() - 0.15


def test_imaging_quality_falls_with_blur_and_noise(real, others) -> None:
    reference = ImagingReference.fit(imaging_statistics(others.clips))
    noise = torch.randn(real.clips.shape, generator=torch.Generator().manual_seed(0))

    def quality(clips: torch.Tensor) -> float:
        return reference.score(imaging_statistics(clips)).mean().item()

    clean = quality(real.clips)
    assert clean > 0.75
    assert quality(_blur(real.clips)) < clean - 0.1
    assert quality(real.clips + 0.1 * noise) < clean - 0.1
    assert quality(real.clips + 0.3 * noise) < quality(real.clips + 0.1 * noise)


def test_too_few_frames_or_clips_are_refused(judge) -> None:
    with pytest.raises(ParameterError, match="two frames"):
        subject_consistency(torch.zeros(1, 3, 1, 64, 64), judge)
    with pytest.raises(ParameterError, match="four real clips"):
        ImagingReference.fit(torch.zeros(2, 3))
