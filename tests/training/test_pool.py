"""Videos to train on: bytes and back, windows, and clear refusals."""

import pytest
import torch

from mobivid_core.data.render import render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.training.pool import VideoPool, captioned_clips, to_bytes, to_float


def test_bytes_survive_the_way_there_and_back_and_inputs_stay():
    values = torch.arange(256, dtype=torch.uint8)
    floats = to_float(values)
    kept = floats.clone()
    assert torch.equal(to_bytes(floats), values)
    assert torch.equal(floats, kept)
    to_float(floats)
    assert torch.equal(floats, kept)


def test_captioned_clips_are_the_rendered_ones():
    clips = captioned_clips(3, frames=9, size=32)
    assert torch.equal(clips, to_bytes(render_clips("train", range(3), frames=9, size=32).clips))


def test_plain_windows_are_pieces_of_their_video():
    video = torch.randint(256, (3, 12, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    window = to_bytes(VideoPool.of([video]).draw(1, 5, 16, torch.Generator().manual_seed(1), augment=False))[0]
    places = video.unfold(1, 5, 1).unfold(2, 16, 1).unfold(3, 16, 1)  # (3, starts, tops, lefts, T, H, W)
    assert (places == window[:, None, None, None]).all(dim=(0, 4, 5, 6)).any()


def test_both_halves_of_a_joined_pool_are_drawn_equally_often():
    few, many = (VideoPool.of([torch.full((3, 5, 8, 8), v, dtype=torch.uint8)] * n) for v, n in ((0, 1), (255, 9)))
    drawn = few.joined(many).draw(400, 5, 8, torch.Generator().manual_seed(0))
    assert (drawn > 0).float().mean() == pytest.approx(0.5, abs=0.1)  # four standard deviations


def test_a_video_that_is_too_small_is_refused():
    pool = VideoPool.of([torch.zeros(3, 5, 8, 8, dtype=torch.uint8)])
    with pytest.raises(ParameterError, match="5 frames of 8x8 is too small for windows of 9 frames"):
        pool.draw(1, 9, 8, torch.Generator())
