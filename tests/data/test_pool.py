"""Videos to train on: bytes and back, windows, and clear refusals."""

import pytest
import torch

from mobivid_core.data.pool import VideoPool, captioned_clips, to_bytes, to_float
from mobivid_core.data.render import render_clips
from mobivid_core.errors import ParameterError


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


def test_the_share_of_a_joined_pool():
    few, many = (VideoPool.of([torch.full((3, 5, 8, 8), v, dtype=torch.uint8)] * n) for v, n in ((0, 1), (255, 9)))
    drawn = few.joined(many, 0.9).draw(400, 5, 8, torch.Generator().manual_seed(0))
    assert (drawn > 0).float().mean() == pytest.approx(0.1, abs=0.06)  # four standard deviations


def test_windows_are_whole_and_turned_and_sped_up_as_said():
    """A video whose pixels say where they are: time, row and column in the three channels."""
    sides = (20, 18, 24)
    video = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.uint8) for n in sides), indexing="ij"))
    drawn = to_bytes(VideoPool.of([video]).draw(60, 5, 16, torch.Generator().manual_seed(0)))
    steps = set()
    for window in drawn.int():
        ways = []
        for axis, place in enumerate(window):  # (T, H, W): place along one axis alone
            line = place.movedim(axis, 0).flatten(1)
            assert (line == line[:, :1]).all() and 0 <= line.min() and line.max() < sides[axis]
            ways.append(line[:, 0].diff().unique().tolist())
        assert all(len(way) == 1 for way in ways)
        steps.add(tuple(way[0] for way in ways))
    assert steps == {(time, 1, column) for time in (1, 2, -1, -2) for column in (1, -1)}


def test_a_moved_pool_keeps_its_videos_and_weights():
    film = torch.zeros(40, 20, 30, 3, dtype=torch.uint8).movedim(-1, 0)
    pool = VideoPool([film[:, :11], film[:, 11:]], torch.ones(2))
    moved = pool.to("meta")
    assert {v.device.type for v in moved.videos} == {"meta"} and torch.equal(moved.weights, pool.weights)
    assert [v.shape for v in moved.videos] == [v.shape for v in pool.videos]


def test_a_video_that_is_too_small_is_refused():
    pool = VideoPool.of([torch.zeros(3, 5, 8, 8, dtype=torch.uint8)])
    with pytest.raises(ParameterError, match="5 frames of 8x8 is too small for windows of 9 frames"):
        pool.draw(1, 9, 8, torch.Generator())
