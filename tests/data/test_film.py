"""The shipped film: split by shot, deterministic, and what the table says is what the files hold."""

import pytest
import torch

from mobivid_core.data.film import clips_dir, film_clips, film_shots
from mobivid_core.data.shots import find_shots
from mobivid_core.data.video_io import iterate_frames
from mobivid_core.errors import ParameterError, VideoError


def test_no_shot_is_in_both_splits():
    train, test = ({shot.shot for shot in film_shots(split)} for split in ("train", "test"))
    assert train and test and not train & test
    assert {shot.film_frame for shot in film_shots("train")}.isdisjoint(s.film_frame for s in film_shots("test"))
    assert 0.1 < len(test) / len(train | test) < 0.3


def test_shots_fill_their_files_without_overlap():
    for split in ("train", "test"):
        end = 0
        for shot in film_shots(split):
            assert shot.first_frame == end
            end += shot.frames
        if split == "test":  # the small file: the table ends where it ends
            assert sum(1 for _ in iterate_frames(clips_dir() / "test.mp4", size=(16, 16))) == end


def test_table_agrees_with_the_cuts_in_the_file():
    frames = list(iterate_frames(clips_dir() / "test.mp4", size=(64, 86)))
    found = {first for first, _ in find_shots(frames)}
    table = {shot.first_frame for shot in film_shots("test")}
    # Between the two halves' joins and lossy coding the rule may miss a soft cut, never many.
    assert len(table - found) <= 2


def test_clips_are_deterministic_and_spread_over_shots():
    first, again = (film_clips("test", frames=9, size=64, limit=8) for _ in range(2))
    assert first.clips.shape == (8, 3, 9, 64, 64)
    assert torch.equal(first.clips, again.clips) and first.film_frames == again.film_frames
    assert len(set(first.shots)) == 8
    assert first.clips.min() >= -1 and first.clips.max() <= 1


def test_clips_stay_inside_their_shot():
    shots = {shot.shot: shot for shot in film_shots("test")}
    clips = film_clips("test", frames=25, size=16)
    for number, start in zip(clips.shots, clips.film_frames, strict=True):
        shot = shots[number]
        assert shot.film_frame <= start and start + 25 <= shot.film_frame + shot.frames
    assert len(set(clips.film_frames)) == len(clips.film_frames)


def test_smaller_clips_are_area_averages():
    large, small = (film_clips("test", frames=3, size=size, limit=3).clips for size in (128, 64))
    pooled = torch.nn.functional.avg_pool3d(large, (1, 2, 2))
    # Scaling happens before the change of colour space: only rounding and clipping at saturated pixels differ.
    assert (pooled - small).abs().mean() < 0.02


def test_wrong_requests_are_explained():
    with pytest.raises(ParameterError, match="train and test"):
        film_clips("validation")
    with pytest.raises(ParameterError, match="128 pixels high, got size=256"):
        film_clips("test", size=256)
    with pytest.raises(ParameterError, match="at least 1"):
        film_clips("test", limit=0)
    with pytest.raises(VideoError, match="no shot of test has 5000 frames"):
        film_clips("test", frames=5000)
