"""How far the judge can be trusted: its own accuracy, and a reading of colour and motion that needs no network."""

from __future__ import annotations

import pandas as pd

from mobivid_core.data.captions import ATTRIBUTES, label_indices
from mobivid_core.evaluate.generation import Evaluator
from mobivid_core.evaluate.judge import accuracy
from mobivid_core.evaluate.readback import READABLE


def trust_table(recorded: pd.DataFrame, evaluator: Evaluator) -> pd.DataFrame:
    """The accuracy that was recorded when the judge was trained, and what is measured now.

    Args:
        recorded: `accuracy.csv` of the judge: clips, one column an attribute, all.
        evaluator: Holds the measures of real clips and reconstructions.

    Returns:
        Columns reader ("judge" or "no network"), clips, the attributes, all; blank where a reader cannot tell.
    """
    truth = label_indices(evaluator.labels)
    rows = []
    for title, measures in (("real", evaluator.real), ("reconstructed", evaluator.reconstruction)):
        clips = f"{title} test clips ({len(measures)})"
        right = accuracy(measures.classes, truth)
        rows.append({"reader": "judge", "clips": clips, **{k: v.mean().item() for k, v in right.items()}})
        read = measures.readback == truth[:, [ATTRIBUTES.index(name) for name in READABLE]]
        shares = read.float().mean(0).tolist()
        rows.append({"reader": "no network", "clips": clips, **dict(zip(READABLE, shares, strict=True))})
    now = pd.DataFrame(rows)
    before = recorded.assign(reader="judge", clips="when trained: " + recorded.clips)
    return pd.concat([before, now], ignore_index=True)[["reader", "clips", *ATTRIBUTES, "all"]]
