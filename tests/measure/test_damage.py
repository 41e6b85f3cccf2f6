"""Each damage does what its name says, and nothing else."""

import torch

from mobivid_core.data.render import RenderedClips
from mobivid_core.measure.quality import corner_pixels
from mobivid_core.measure.trials import DAMAGES, TESTED

SPOIL = {d.name: d.apply for d in DAMAGES}


def test_every_damage_keeps_the_shape_and_range(real: RenderedClips) -> None:
    for spoil in (d.apply for d in DAMAGES if d.apply):
        clips = spoil(real)
        assert clips.shape == real.clips.shape and clips.abs().max() <= 1 + 1e-4
        assert not torch.equal(clips, real.clips)


def test_blur_keeps_flat_areas_and_lowers_edges(real: RenderedClips) -> None:
    clips = SPOIL["blur"](real)
    assert clips.diff(dim=-1).abs().amax() < 0.7 * real.clips.diff(dim=-1).abs().amax()
    flat = torch.full_like(real.clips, 0.3)
    spoilt = SPOIL["blur"](RenderedClips(flat, real.labels, real.captions, real.masks))
    torch.testing.assert_close(spoilt, flat)


def test_object_and_background_are_exchanged_exactly(real: RenderedClips) -> None:
    other = SPOIL["other background"](real)
    mask = real.masks[:, None].expand_as(other)
    assert torch.equal(other[mask], real.clips[mask])
    assert torch.equal(corner_pixels(other), corner_pixels(real.clips.roll(-1, 0)))
    half = SPOIL["other object half-way"](real)
    assert torch.equal(half[:, :, :8], real.clips[:, :, :8])
    late = real.masks.roll(-1, 0)[:, None].expand_as(half)[:, :, 8:]
    assert torch.equal(half[:, :, 8:][late], real.clips.roll(-1, 0)[:, :, 8:][late])


def test_time_is_rearranged_as_said(real: RenderedClips) -> None:
    assert SPOIL["frozen video"](real).diff(dim=2).abs().max() == 0
    assert torch.equal(SPOIL["half speed"](real)[:, :, 2::2], real.clips[:, :, 1:9])
    assert torch.equal(SPOIL["reversed"](real).flip(2), real.clips)
    assert torch.equal(SPOIL["shuffled frames"](real).sum(2), SPOIL["shuffled frames"](real).sum(2))
    torch.testing.assert_close(SPOIL["shuffled frames"](real).mean(2), real.clips.mean(2))


def test_every_measure_exists_for_some_damage() -> None:
    wanted = {name for d in DAMAGES for name in (*d.lowers, *d.raises)}
    assert wanted == set(TESTED)
