"""Beyond what was trained: attribute combinations that were held out, and a wording that no training caption uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.data.captions import (
    ATTRIBUTES,
    TRAIN_WORDINGS,
    VOCABULARY,
    WORDINGS,
    ClipLabel,
    caption,
    label_indices,
)
from mobivid_core.data.render import label_of
from mobivid_core.errors import ParameterError
from mobivid_core.evaluate.judge import accuracy
from mobivid_core.evaluate.metrics import bootstrap_interval
from mobivid_core.evaluate.minivbench import SEMANTIC
from mobivid_core.models.text import encode_text

if TYPE_CHECKING:
    from mobivid_core.evaluate.generation import Evaluation

#: Captions that the reading of the text encoder is fitted on; test captions start at 0 and never reach them.
_PROBE_START = 5_000_000
_PROBE_CAPTIONS = 512


def unseen_gap(evaluation: Evaluation, name: str = "all_together", resamples: int = 1000) -> tuple[float, float, float]:
    """How much better captions are met whose (shape, colour, motion) was trained than held-out ones.

    Args:
        evaluation: Clips of both kinds of captions.
        name: "all_together" or a semantic dimension.
        resamples: Bootstrap resamples.

    Returns:
        (share right among trained - share right among held-out, low, high), both kinds resampled together.

    Raises:
        ParameterError: The captions are all of one kind.
    """
    values = _right(evaluation, name)
    unseen = np.array([label.unseen for label in evaluation.labels])
    if unseen.all() or not unseen.any():
        raise ParameterError("the gap needs both trained and held-out captions; evaluate two clips or more")
    rng = np.random.default_rng(0)
    draws = [
        rng.choice(values[~unseen], (~unseen).sum()).mean() - rng.choice(values[unseen], unseen.sum()).mean()
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(values[~unseen].mean() - values[unseen].mean()), float(low), float(high)


def paraphrases(runs: Sequence[Evaluation], readable: Sequence[float]) -> pd.DataFrame:
    """Table of the wordings: the same captions and noises, said in each way.

    Args:
        runs: One evaluation a wording, in order, of the same captions.
        readable: For each wording, `readable_share`.

    Returns:
        A row a wording: wording, trained (yes or no), example, text_readable, all_together, change (from the mean of
        the trained wordings, clip by clip), low and high (its 95 % interval), n.

    Raises:
        ParameterError: Not one evaluation and one share a wording.
    """
    if not len(runs) == len(readable) == WORDINGS:
        raise ParameterError(f"there are {WORDINGS} wordings; got {len(runs)} evaluations and {len(readable)} shares")
    right = np.stack([_right(run, "all_together") for run in runs])
    trained = right[:TRAIN_WORDINGS].mean(0)
    rows = []
    for wording, (run, share) in enumerate(zip(runs, readable, strict=True)):
        change = bootstrap_interval(right[wording] - trained)
        known = "yes" if wording < TRAIN_WORDINGS else "no"
        rows.append((wording, known, caption(run.labels[0]), share, right[wording].mean(), *change, len(run.labels)))
    names = ["wording", "trained", "example", "text_readable", "all_together", "change", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


def readable_share(wording: int, n: int = 256, *, ridge: float = 1.0) -> float:
    """Share of captions from whose encoding a linear reading, fitted on trained wordings, gets every attribute right.

    The reading sees the mean token state, so it asks less than the diffusion model, which sees the tokens.

    Args:
        wording: How the captions read are worded.
        n: Captions read.
        ridge: Penalty of the least squares.
    """
    fitted = [replace(label_of("val", _PROBE_START + i), wording=i % TRAIN_WORDINGS) for i in range(_PROBE_CAPTIONS)]
    read = [replace(label_of("test", i), wording=wording) for i in range(n)]
    x = _pooled(fitted)
    centre = x.mean(0)
    weights = torch.linalg.solve(
        (x - centre).T @ (x - centre) + ridge * torch.eye(x.shape[1]), (x - centre).T @ _one_hot(fitted)
    )
    scores = (_pooled(read) - centre) @ weights
    sizes = [len(VOCABULARY[name]) for name in ATTRIBUTES]
    found = torch.stack([part.argmax(1) for part in scores.split(sizes, 1)], 1)
    return accuracy(found, label_indices(read))["all"].mean().item()


def _pooled(labels: Sequence[ClipLabel]) -> Tensor:
    """Mean token states (N, D)."""
    states, mask = encode_text([caption(label) for label in labels])
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _one_hot(labels: Sequence[ClipLabel]) -> Tensor:
    """(N, classes of all attributes), each attribute centred."""
    columns = label_indices(labels).unbind(1)
    parts = [
        torch.nn.functional.one_hot(column, len(VOCABULARY[name])).float() - 1 / len(VOCABULARY[name])
        for name, column in zip(ATTRIBUTES, columns, strict=True)
    ]
    return torch.cat(parts, 1)


def _right(evaluation: Evaluation, name: str) -> np.ndarray:
    """(N,) 1 where the caption, or one dimension of it, was met."""
    right = accuracy(evaluation.measures.classes, label_indices(evaluation.labels))
    return right["all" if name == "all_together" else SEMANTIC[name]].numpy()
