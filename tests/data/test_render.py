"""Renderer: deterministic, and what it says of a clip is true of its pixels."""

import numpy as np
import pytest
import torch

from mobivid_core.data.render import HUES, label_of, render_clips
from mobivid_core.errors import ParameterError

SMALL = dict(frames=9, size=64)


def test_a_clip_depends_on_split_and_index_alone():
    together = render_clips("train", [3, 7, 11], **SMALL)
    alone = render_clips("train", [7], **SMALL)
    assert torch.equal(together.clips[1], alone.clips[0])
    assert together.labels[1] == alone.labels[0] == label_of("train", 7)
    assert not torch.equal(alone.clips, render_clips("val", [7], **SMALL).clips)


def test_shapes_and_range():
    r = render_clips("train", range(4), **SMALL)
    assert r.clips.shape == (4, 3, 9, 64, 64) and r.clips.dtype == torch.float32
    assert r.masks.shape == (4, 9, 64, 64) and r.boxes.shape == (4, 9, 4)
    assert r.clips.min() >= -1.001 and r.clips.max() <= 1.001  # interpolation rounds in float32


def test_boxes_are_the_tight_boxes_of_the_masks():
    r = render_clips("val", range(3), **SMALL)
    for mask, box in zip(r.masks.flatten(0, 1), r.boxes.flatten(0, 1), strict=False):
        ys, xs = mask.nonzero(as_tuple=True)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_motion_labels_are_true_of_the_boxes():
    r = render_clips("train", range(120), **SMALL)
    middle = (r.boxes[..., :2] + r.boxes[..., 2:]) / 2
    area = r.masks.flatten(2).sum(-1).float()
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
    assert right >= 58  # a dark or patterned sprite may read as its neighbour


def test_test_split_alternates_seen_and_held_out_triples():
    assert [label_of("test", i).unseen for i in range(6)] == [False, True] * 3
    assert not any(label_of(split, i).unseen for split in ("train", "val", "judge") for i in range(100))


def test_unknown_split_is_named():
    with pytest.raises(ParameterError, match="unknown split 'dev'; the splits are train"):
        render_clips("dev", [0])
