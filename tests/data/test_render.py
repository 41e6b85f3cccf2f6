"""Renderer: deterministic, and what it says of a clip is true of its pixels."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from mobivid_core.data import pictures, render
from mobivid_core.data.captions import VOCABULARY, caption
from mobivid_core.data.pictures import sprite_table
from mobivid_core.data.render import HUES, draw_scenes, label_of, paint, render_clips
from mobivid_core.errors import ParameterError

SMALL = dict(frames=9, size=64)


def test_a_clip_depends_on_split_and_index_alone():
    together = render_clips("train", [3, 7, 11], **SMALL)
    alone = render_clips("train", [7], **SMALL)
    assert torch.equal(together.clips[1], alone.clips[0])
    assert together.labels[1] == alone.labels[0] == label_of("train", 7)
    assert not torch.equal(alone.clips, render_clips("val", [7], **SMALL).clips)


def test_any_batching_paints_the_same_clip(monkeypatch):
    scenes, labels = draw_scenes("test", range(5), 9)
    whole = paint(scenes, 64)
    monkeypatch.setattr(render, "_TOGETHER_CPU", 2 * 9 * 64 * 64)  # two clips
    parts = paint(scenes, 64)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    again = draw_scenes("test", [3], 9)
    assert again[1][0] == labels[3]
    assert torch.equal(paint(again[0], 64)[0][0], whole[0][3])


def test_no_clips_are_an_empty_batch():
    r = render_clips("train", [], **SMALL)
    assert r.clips.shape == (0, 3, 9, 64, 64) and r.captions == []


def test_captions_are_those_of_the_labels():
    r = render_clips("val", range(4), **SMALL)
    assert r.captions == [caption(label) for label in r.labels]


def test_shapes_and_range():
    r = render_clips("train", range(4), **SMALL)
    assert r.clips.shape == (4, 3, 9, 64, 64) and r.clips.dtype == torch.float32
    assert r.masks.shape == (4, 9, 64, 64)
    assert r.clips.min() >= -1.001 and r.clips.max() <= 1.001  # interpolation rounds in float32


def test_masks_are_true_of_the_pixels():
    """Where no mask ever lies nothing changes; where the mask lies, the object hides the background."""
    scenes, labels = draw_scenes("train", range(40), 9)
    away = dataclasses.replace(scenes, centres=scenes.centres + 10)  # the same backgrounds, the object out of sight
    clips, masks = paint(scenes, 64)
    empty = paint(away, 64)[0]
    # a drawing fades over its rim: two pixels around the mask belong to both
    near = max_pool2d(masks.float(), 5, 1, 2).bool()[:, None].expand_as(clips)
    assert torch.equal(empty, empty[:, :, :1].expand_as(empty))
    # and a few drawings have a translucent part, as the water under a sailboat
    assert ((clips - empty).abs()[~near] > 0.05).float().mean() < 0.001
    changed = (clips - empty).abs().amax(1)
    assert (changed[masks] > 0.05).float().mean() > 0.95
    still = [i for i, label in enumerate(labels) if label.motion == "still"]
    assert still and all(torch.equal(clips[i, :, 0], clips[i, :, -1]) for i in still)


def test_masks_hold_the_object_in_every_frame():
    r = render_clips("test", range(64), **SMALL)
    share = r.masks.float().mean((2, 3))
    assert 0.01 < share.min() and share.max() < 0.5


def test_motion_labels_are_true_of_the_masks():
    r = render_clips("train", range(120), **SMALL)
    area = r.masks.flatten(2).sum(-1).float()
    lines = r.masks.sum(2), r.masks.sum(3)  # (B, T, W) and (B, T, H) pixels of the object
    middle = torch.stack([(line * torch.arange(64)).sum(-1) / area for line in lines], -1)
    for i, label in enumerate(r.labels):
        dx, dy = (middle[i, -1] - middle[i, 0]).tolist()
        growth = float(area[i, -1] / area[i, 0])
        told = {
            "left": dx < -10 and abs(dy) < 3,
            "right": dx > 10 and abs(dy) < 3,
            "up": dy < -10 and abs(dx) < 3,
            "down": dy > 10 and abs(dx) < 3,
            "still": abs(dx) + abs(dy) < 1 and 0.98 < growth < 1.02,
            "growing": growth > 2,
            "shrinking": growth < 0.5,
            "circling": abs(dx) + abs(dy) < 3 and (middle[i].amax(0) - middle[i].amin(0)).min() > 12,
        }[label.motion]
        assert told, (i, label, dx, dy, growth)


def test_colour_labels_are_true_of_the_pixels():
    r = render_clips("train", range(60), **SMALL)
    names = list(HUES)
    hues = np.array([HUES[n] for n in names])
    right = 0
    for i, label in enumerate(r.labels):
        pixels = ((r.clips[i, :, 0] + 1) / 2)[:, r.masks[i, 0]].numpy()
        mean = pixels.mean(1)
        mean = mean / mean.max()  # sprites are shaded: compare hue, not brightness
        right += names[np.argmin(((hues / hues.max(1, keepdims=True) - mean) ** 2).sum(1))] == label.colour
    assert right >= 54  # white parts and shades make some drawings read as a neighbouring colour


def _background_spread(size: int = 64) -> dict[str, np.ndarray]:
    """Kind of background -> standard deviation of the grey levels of each clip's background."""
    scenes, labels = draw_scenes("train", range(200), 2)
    pixels = render._background(scenes, size, torch.device("cpu")).mean(1).flatten(1).std(1).numpy()
    kinds = np.array([label.background for label in labels])
    return {kind: pixels[kinds == kind] for kind in VOCABULARY["background"]}


def test_out_of_focus_pictures_stay_tellable_from_a_plain_background():
    spread = _background_spread()
    assert spread["plain"].max() < 1e-5
    assert np.quantile(spread["photo"], 0.05) > 0.01 and spread["film"].min() > 0.02
    assert spread["photo"].min() > 10 * spread["plain"].max()
    assert spread["gradient"].min() > 0.05 and spread["gradient"].std() < 0.02  # one ramp, in any direction


def test_backgrounds_of_tests_are_other_film_frames():
    first, count = pictures.image_ranges()["film_train"]
    other, size = pictures.image_ranges()["film_test"]
    assert first + count <= other or other + size <= first
    images = torch.cat(list(pictures.soft_images().values()))
    distance = torch.cdist(images[first : first + count].flatten(1), images[other : other + size].flatten(1))
    assert distance.min() > 0.5  # no frame of one part is in the other


def test_every_class_has_drawings_of_both_parts_and_one_artist_is_only_in_test():
    rows = sprite_table()
    for shape in VOCABULARY["shape"]:
        for part in ("train", "test"):
            assert any(row["shape"] == shape and row["part"] == part for row in rows), (shape, part)
    assert {row["set"] for row in rows if row["part"] == "test"} == {"emojione"}
    assert "emojione" not in {row["set"] for row in rows if row["part"] == "train"}
    tests = {i for i, row in enumerate(rows) if row["part"] == "test"}
    for split in render.SPLITS:
        drawn = set(draw_scenes(split, range(300))[0].sprites.tolist())
        assert drawn <= tests if split == "test" else not drawn & tests
    drawn = draw_scenes("train", range(3000), 1)[0].sprites
    assert set(drawn.tolist()) == set(range(len(rows))) - tests  # no drawing is left unused


def test_a_clip_shows_a_drawing_of_its_label():
    scenes, labels = draw_scenes("judge", range(100), 1)
    assert [sprite_table()[i]["shape"] for i in scenes.sprites] == [label.shape for label in labels]


def test_test_split_alternates_seen_and_held_out_triples():
    assert [label_of("test", i).unseen for i in range(6)] == [False, True] * 3
    assert not any(label_of(split, i).unseen for split in ("train", "val", "judge") for i in range(100))


def test_unknown_split_is_named():
    with pytest.raises(ParameterError, match="unknown split 'dev'; the splits are train"):
        render_clips("dev", [0])
