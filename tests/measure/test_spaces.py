"""Distances in both feature spaces, above the codec's own, and what is said where they disagree."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch

from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.minivbench import SPACES, ClipMeasures, Reference
from mobivid_core.measure.quality import ImagingReference
from mobivid_core.measure.spaces import in_spaces

N = 60


@dataclass(frozen=True)
class Run:
    measures: ClipMeasures
    scores: dict[str, float]


def _measures(judge: float, image: float, g: torch.Generator) -> ClipMeasures:
    """Clips that lie so far from the codec's in the judge's and in the image features."""
    ones = torch.ones(N)
    base = torch.randn(N, 4, generator=g)
    return ClipMeasures(
        torch.zeros(N, 4, dtype=torch.long), base + judge, torch.rand(N, 3, generator=g), *(ones,) * 6,
        image_features=torch.randn(N, 4, generator=g) + image,
    )  # fmt: skip


@pytest.fixture()
def setting() -> tuple[Reference, dict[str, Run], ClipMeasures]:
    g = torch.Generator().manual_seed(0)
    far = torch.randn(300, 4, generator=g)
    axes = ImageAxes.fit(far)
    near = torch.randn(300, 4, generator=g)
    reference = Reference(
        ImagingReference.fit(torch.rand(40, 3, generator=g) + 0.1), near + 9, near, image_axes=axes,
        image_real=axes.project(far + 9), image_reconstruction=axes.project(far),
    )  # fmt: skip
    scores = {space.reconstruction: 1.0 for space in SPACES.values()}
    shifts = {"teacher": (1.0, 1.0), "a": (1.5, 3.0), "b": (3.0, 1.5)}
    return reference, {k: Run(_measures(*v, g), scores) for k, v in shifts.items()}, _measures(0.3, 0.3, g)


def test_every_generator_in_every_space_with_its_interval(setting) -> None:
    reference, runs, codec = setting
    found = in_spaces(runs, "teacher", codec, reference)
    assert len(found.table) == 6 and set(found.table["n"]) == {N}
    assert (found.table["interval"] == "95 % bootstrap, pairs of clips").all()
    column = "above the codec / teacher's"
    wide = found.table.pivot(index="clips", columns="distances in", values=column)
    assert wide.loc["teacher"].tolist() == pytest.approx([1.0, 1.0])
    judge, image = SPACES["judge"].title, SPACES["image"].title
    assert wide.loc["a", judge] < wide.loc["b", judge] and wide.loc["a", image] > wide.loc["b", image]


def test_disagreements_are_named_with_what_each_space_rewards(setting) -> None:
    reference, runs, codec = setting
    rows = [
        (damage, space.real, change, "rises", seen)
        for space, reactions in zip(SPACES.values(), ((9.0, 0.1), (8.0, 2.0)), strict=True)
        for damage, change, seen in zip(("swap", "blur"), reactions, ("True", "False"), strict=True)
    ]
    trials = pd.DataFrame(rows, columns=["damage", "measure", "in_noise", "expected", "seen"])
    found = in_spaces(runs, "teacher", codec, reference, trials)
    assert found.disagreements == (("a", "b"),)
    told = found.finding()
    assert "order 1 of 3 pairs differently" in told and "react most to swap, blur and miss blur" in told
    assert in_spaces(runs, "teacher", codec, reference).rewards == ()


def test_a_space_that_was_not_measured_is_left_out(setting) -> None:
    reference, runs, codec = setting
    plain = {k: Run(replace(run.measures, image_features=None), run.scores) for k, run in runs.items()}
    found = in_spaces(plain, "teacher", codec, reference)
    assert set(found.table["distances in"]) == {SPACES["judge"].title} and found.disagreements == ()
