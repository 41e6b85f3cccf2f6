"""Captions: words say what labels hold, and held-out triples stay out."""

import itertools

import numpy as np
import pytest

from mobivid_core.data.captions import (
    ATTRIBUTES,
    TRAIN_WORDINGS,
    VOCABULARY,
    WORDINGS,
    ClipLabel,
    caption,
    draw_label,
    is_held_out,
    label_indices,
)


def test_caption_reads_as_english():
    assert caption(ClipLabel("circle", "red", "left", "plain")) == "a red circle moving left on a plain background"
    assert "an orange pair of trousers" in caption(ClipLabel("trousers", "orange", "up", "film", wording=0))


@pytest.mark.parametrize("wording", range(WORDINGS))
def test_captions_of_a_wording_are_distinct(wording):
    labels = [ClipLabel(*values, wording=wording) for values in itertools.product(*VOCABULARY.values())]
    assert len({caption(label) for label in labels}) == len(labels)


def test_label_indices_invert_the_vocabulary():
    rng = np.random.default_rng(0)
    labels = [draw_label(rng, held_out=None) for _ in range(20)]
    for row, label in zip(label_indices(labels).tolist(), labels, strict=False):
        assert [VOCABULARY[a][i] for a, i in zip(ATTRIBUTES, row, strict=False)] == [
            getattr(label, a) for a in ATTRIBUTES
        ]


def test_a_tenth_of_the_triples_is_held_out_and_every_value_is_trainable():
    triples = list(itertools.product(*(VOCABULARY[a] for a in ATTRIBUTES[:3])))
    held = [t for t in triples if is_held_out(*t)]
    assert len(held) / len(triples) == pytest.approx(0.1, abs=0.02)
    for axis in range(3):  # a value seen in no trainable triple could not be learnt
        assert {t[axis] for t in triples if not is_held_out(*t)} == set(VOCABULARY[ATTRIBUTES[axis]])


def test_draws_respect_the_hold_out_and_the_last_wording():
    rng = np.random.default_rng(1)
    assert not any(draw_label(rng, held_out=False).unseen for _ in range(200))
    assert all(draw_label(rng, held_out=True).unseen for _ in range(50))
    assert {draw_label(rng, held_out=None).wording for _ in range(200)} == set(range(TRAIN_WORDINGS))
