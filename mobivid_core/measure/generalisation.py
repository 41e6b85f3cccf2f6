"""Beyond what was trained: attribute combinations that were held out, and wordings that no training caption uses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mobivid_core.data.captions import ATTRIBUTES, TRAIN_WORDINGS, VOCABULARY, ClipLabel, caption, label_indices
from mobivid_core.data.render import label_of
from mobivid_core.errors import ParameterError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.judge import accuracy
from mobivid_core.models.text import encode_text

if TYPE_CHECKING:
    from mobivid_core.measure.generation import Evaluation

#: Wordings whose captions are compared: trained ones of four templates, and held-out ones of all four templates.
#: The latter use both held-out phrases of every part of the grammar that has two.
PROBED_TRAINED = (0, 22, 33, 50)
PROBED_UNSEEN = (512, 515, 525, 526)
PROBED = PROBED_TRAINED + PROBED_UNSEEN

#: Captions that the reading of the text encoder is fitted on; test captions start at 0 and never reach them.
_PROBE_START = 5_000_000
_PROBE_CAPTIONS = 2 * TRAIN_WORDINGS  # every trained wording twice


def unseen_gap(evaluation: Evaluation) -> Interval:
    """How much better captions are met whose (shape, colour, motion) was trained than held-out ones.

    Captions all of one kind are a `ParameterError`.
    """
    values = _right(evaluation)
    unseen = np.array([label.unseen for label in evaluation.labels])
    if unseen.all() or not unseen.any():
        raise ParameterError("the gap needs both trained and held-out captions; evaluate two clips or more")
    return intervals.unpaired_difference(values[~unseen], values[unseen])


def paraphrases(runs: Sequence[Evaluation], readable: Sequence[float]) -> pd.DataFrame:
    """Table of the wordings of `PROBED`, from an evaluation and the `readable_share` of each, of the same captions.

    Returns:
        A row a wording: wording, trained (yes or no), example, text_readable, all_together, change (from the mean of
        the trained wordings, clip by clip), low and high (its 95 % interval), n.
    """
    right, count = _probed(runs), len(PROBED_TRAINED)
    if len(readable) != len(PROBED):
        raise ParameterError(f"expected one share for each of the {len(PROBED)} probed wordings; got {len(readable)}")
    trained = right[:count].mean(0)
    rows = []
    for number, (wording, run, share) in enumerate(zip(PROBED, runs, readable, strict=True)):
        change = intervals.difference(right[number], trained)
        known = "yes" if number < count else "no"
        example = caption(replace(run.labels[0], wording=wording))
        rows.append((wording, known, example, share, right[number].mean(), *change, len(run.labels)))
    names = ["wording", "trained", "example", "text_readable", "all_together", "change", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


def wording_gap(runs: Sequence[Evaluation]) -> Interval:
    """How much better clips meet trained wordings than held-out ones, in means over wordings; as `paraphrases`."""
    right, count = _probed(runs), len(PROBED_TRAINED)
    return intervals.difference(right[:count].mean(0), right[count:].mean(0))


def _probed(runs: Sequence[Evaluation]) -> np.ndarray:
    """(wordings, N) 1 where a clip met its caption; rows in the order of `PROBED`."""
    if len(runs) != len(PROBED):
        raise ParameterError(f"expected one evaluation for each of the {len(PROBED)} probed wordings; got {len(runs)}")
    meant = [[replace(label, wording=0) for label in run.labels] for run in runs]
    if any(labels != meant[0] for labels in meant):
        raise ParameterError("the evaluations are of different captions; evaluate the same clips in every wording")
    return np.stack([_right(run) for run in runs])


def readable_share(wording: int, n: int = 256) -> float:
    """Share of n captions from whose encoding a linear reading, fitted on trained wordings, gets all attributes.

    The reading sees the mean token state, so it asks less than the diffusion model, which sees the tokens.
    """
    read = [replace(label_of("test", i), wording=wording) for i in range(n)]
    centre, weights = _reading()
    scores = (_pooled(read) - centre) @ weights
    sizes = [len(VOCABULARY[name]) for name in ATTRIBUTES]
    found = torch.stack([part.argmax(1) for part in scores.split(sizes, 1)], 1)
    return accuracy(found, label_indices(read))["all"].mean().item()


@functools.cache
def _reading() -> tuple[Tensor, Tensor]:
    """Centre (D,) and weights (D, classes) of the linear reading, fitted on captions in all trained wordings."""
    fitted = [replace(label_of("val", _PROBE_START + i), wording=i % TRAIN_WORDINGS) for i in range(_PROBE_CAPTIONS)]
    # one column a class, each attribute centred
    targets = [
        one_hot(column, len(VOCABULARY[name])).float() - 1 / len(VOCABULARY[name])
        for name, column in zip(ATTRIBUTES, label_indices(fitted).unbind(1), strict=True)
    ]
    x = _pooled(fitted)
    centre = x.mean(0)
    gram = (x - centre).T @ (x - centre) + torch.eye(x.shape[1])  # a ridge of 1
    return centre, torch.linalg.solve(gram, (x - centre).T @ torch.cat(targets, 1))


def _pooled(labels: Sequence[ClipLabel]) -> Tensor:
    """Mean token states (N, D)."""
    states, mask = encode_text([caption(label) for label in labels])
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _right(evaluation: Evaluation) -> np.ndarray:
    """(N,) 1 where the caption was met."""
    return accuracy(evaluation.measures.classes, label_indices(evaluation.labels))["all"].numpy()
