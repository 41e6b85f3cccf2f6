"""Captions: words say what labels hold, and held-out triples and wordings stay out."""

import itertools
import re

import numpy as np
import pytest

from mobivid_core.data import captions, wordings
from mobivid_core.data.captions import (
    ATTRIBUTES,
    BACKGROUND_SHARES,
    TRAIN_WORDINGS,
    UNSEEN_WORDINGS,
    VOCABULARY,
    WORDINGS,
    ClipLabel,
    caption,
    is_held_out,
    label_from,
    label_indices,
    triples,
)
from mobivid_core.models.text import MAX_LENGTH, load_tokenizer

_PHRASES = {"noun": wordings.NOUNS, "motion": wordings.MOTIONS, "background": wordings.BACKGROUNDS}


def _sample(count: int, seed: int = 0) -> list[ClipLabel]:
    """Labels with every wording in turn and random attributes, held-out triples included."""
    rng = np.random.default_rng(seed)
    picks = [[rng.choice(VOCABULARY[name]) for name in ATTRIBUTES] for _ in range(count)]
    return [ClipLabel(*map(str, values), wording=i % WORDINGS) for i, values in enumerate(picks)]


def _draws(count: int, held_out: bool) -> list[ClipLabel]:
    return [label_from(u, held_out=held_out) for u in np.random.default_rng(1).random((count, 3))]


def test_caption_reads_as_english():
    assert caption(ClipLabel("star", "red", "right", "plain")) == "a red star moving right on a plain background"
    assert caption(ClipLabel("elephant", "orange", "still", "film")).startswith("an orange elephant standing still")


def test_the_article_follows_the_next_word():
    for label in _sample(4 * WORDINGS):
        words = caption(label)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", words), words
        assert not re.search(r"[{}|*]|  ", words) and words == words.strip(), words
        assert not re.search(r"(coloured|of|in|is|,) (\w+-coloured)", words), words


def test_a_caption_is_a_function_of_its_label():
    labels = _sample(WORDINGS)
    before = [caption(label) for label in labels]
    captions._wording.cache_clear()
    assert [caption(label) for label in labels] == before


@pytest.mark.parametrize("part", ["trained", "unseen"])
def test_captions_of_a_wording_are_distinct(part):
    wordings = range(TRAIN_WORDINGS, WORDINGS) if part == "unseen" else (0, *range(1, TRAIN_WORDINGS, 16))
    every = list(itertools.product(*VOCABULARY.values()))
    for wording in wordings:
        assert len({caption(ClipLabel(*values, wording=wording)) for values in every}) == len(every)


def test_wordings_are_hundreds_of_ways_to_say_one_thing():
    said = {caption(ClipLabel("car", "red", "right", "film", wording)) for wording in range(TRAIN_WORDINGS)}
    assert len(said) > 0.95 * TRAIN_WORDINGS  # a few draws of the grammar agree on every part
    unseen = {caption(ClipLabel("car", "red", "right", "film", TRAIN_WORDINGS + k)) for k in range(UNSEEN_WORDINGS)}
    assert len(unseen) >= 10 and not said & unseen


def test_unseen_wordings_share_no_template_or_phrase_with_trained_ones():
    parts = [wordings.TEMPLATES, *(words for group in _PHRASES.values() for words in group.values())]
    for words in parts:
        assert words.train and words.unseen and not set(words.train) & set(words.unseen)
    for group in (wordings.MOTIONS, wordings.BACKGROUNDS):
        halves = {half for words in group.values() for phrase in words.train for half in phrase.split("|")}
        for words in group.values():
            assert not halves & {half for phrase in words.unseen for half in phrase.split("|")}


def test_unseen_wordings_use_held_out_phrases_and_trained_wordings_do_not():
    for label in _sample(4 * WORDINGS, seed=2):
        words = caption(label)
        for group, name in ((wordings.MOTIONS, label.motion), (wordings.BACKGROUNDS, label.background)):
            held = [half for phrase in group[name].unseen for half in phrase.split("|")]
            assert any(half in words for half in held) == (label.wording >= TRAIN_WORDINGS), words


def test_phrases_of_different_values_differ():
    for group in _PHRASES.values():
        said = [phrase for words in group.values() for phrase in (*words.train, *words.unseen)]
        assert len(said) == len(set(said))


def test_no_caption_is_cut_by_the_text_encoder():
    longest = max(len(ids) for ids in load_tokenizer()([caption(x) for x in _sample(16 * WORDINGS)])["input_ids"])
    assert longest <= MAX_LENGTH


def test_label_indices_invert_the_vocabulary():
    labels = _sample(20)
    for row, label in zip(label_indices(labels).tolist(), labels, strict=True):
        assert [VOCABULARY[a][i] for a, i in zip(ATTRIBUTES, row, strict=True)] == [
            getattr(label, a) for a in ATTRIBUTES
        ]


def test_a_tenth_of_the_triples_is_held_out_and_every_value_is_trainable():
    every = list(itertools.product(*(VOCABULARY[a] for a in ATTRIBUTES[:3])))
    held = [t for t in every if is_held_out(*t)]
    assert len(held) / len(every) == pytest.approx(0.1, abs=0.02)
    assert sorted(held) == sorted(triples(True)) and len(triples(False)) == len(every) - len(held)
    for axis in range(3):  # a value seen in no trainable triple could not be learnt
        assert {t[axis] for t in triples(False)} == set(VOCABULARY[ATTRIBUTES[axis]])


def test_draws_respect_the_hold_out_of_triples_and_wordings():
    assert not any(label.unseen for label in _draws(500, held_out=False))
    assert all(label.unseen for label in _draws(500, held_out=True))
    wordings = {label.wording for label in _draws(8000, held_out=False)}
    assert wordings == set(range(TRAIN_WORDINGS))  # 8,000 draws miss one of 512 with a chance of 1e-4


def test_backgrounds_are_drawn_by_their_shares():
    names = [label.background for label in _draws(4000, held_out=False)]
    found = [names.count(name) / len(names) for name in VOCABULARY["background"]]
    assert sum(BACKGROUND_SHARES) == pytest.approx(1)
    assert found == pytest.approx(list(BACKGROUND_SHARES), abs=0.03)  # four standard deviations of a share of .35
    ends = label_from([1 - 1e-12] * 3, held_out=False)
    assert ends.background == VOCABULARY["background"][-1] and ends.wording == TRAIN_WORDINGS - 1
