"""The test of the measures, on measures whose answer is known."""

import dataclasses

import pandas as pd
import pytest
import torch

from mobivid_core.data.captions import label_indices
from mobivid_core.data.render import label_of
from mobivid_core.measure import trials
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.measures import ClipMeasures
from mobivid_core.measure.minivbench import Reference, score
from mobivid_core.measure.quality import ImagingReference
from mobivid_core.measure.trials import COLLAPSE, DAMAGES, TESTED, effects, failing, verdicts

N = 40
LABELS = [label_of("test", i) for i in range(N)]


def _measures(seed: int = 0) -> ClipMeasures:
    """What a perfect judge and perfect geometry would measure on real clips."""
    g = torch.Generator().manual_seed(seed)
    truth = label_indices(LABELS)
    high = [0.97 + 0.02 * torch.rand(N, generator=g) for _ in range(4)]
    return ClipMeasures(
        truth,
        torch.randn(N, 3, generator=g),
        torch.randn(N, 3, generator=g),
        *high,
        torch.ones(N),
        0.01 + 0.001 * torch.rand(N, generator=g),
        truth[:, [1, 2]],
        torch.randn(N, 6, generator=g),
        1.2 + 0.1 * torch.rand(N, generator=g),
        0.5 + 0.1 * torch.rand(N, generator=g),
    )


@pytest.fixture()
def reference() -> Reference:
    other = _measures(1)
    axes = ImageAxes.fit(other.image_features)
    return Reference(
        ImagingReference.fit(other.imaging),
        other.features,
        image_axes=axes,
        image_real=axes.project(other.image_features),
    )


def _spoilt(intact: ClipMeasures) -> dict[str, ClipMeasures]:
    """Each damage moves exactly what it should."""
    made = {}
    for damage in (d for d in DAMAGES if d.apply):
        changes: dict[str, torch.Tensor] = {}
        classes, read = intact.classes.clone(), intact.readback.clone()
        for name in (*damage.lowers, *damage.raises):
            column = {"color": 1, "action": 2, "scene": 3}.get(name)
            if column is not None:
                classes[:, column] = (classes[:, column] + 1) % 3
            elif name in ("color_pixels", "action_flow"):
                read[:, ("color_pixels", "action_flow").index(name)] += 1
            elif name == "frechet_real":
                changes["features"] = intact.features + 5
            elif name == "image_frechet_real":
                changes["image_features"] = intact.image_features + 5
            elif name == "border_ratio":
                changes["borders"] = intact.borders + 1
            elif name == "imaging_quality":
                changes["imaging"] = intact.imaging + 5
            elif name in ("warping_error", "dynamic_degree", "subject_consistency", "background_consistency"):
                changes[name] = getattr(intact, name) + (0.1 if name == "warping_error" else -0.3)
            elif name != "all_together":
                changes[name] = getattr(intact, name) - 0.2
        made[damage.name] = dataclasses.replace(intact, classes=classes, readback=read, **changes)
    return made


def test_measures_that_move_are_kept(reference: Reference) -> None:
    intact = _measures()
    frame = effects(intact, _spoilt(intact), LABELS, reference, resamples=80)
    assert set(frame.measure) == set(TESTED) and len(frame) == len(TESTED) * len(DAMAGES)
    assert set(verdicts(frame).verdict) == {"kept"} and failing(frame) == ()


@pytest.mark.parametrize("blind", ["subject_consistency", "motion_smoothness", "temporal_flickering"])
def test_a_blind_measure_is_dropped_and_leaves_the_averages(reference: Reference, blind: str) -> None:
    intact = _measures()
    spoilt = {k: dataclasses.replace(m, **{blind: getattr(intact, blind)}) for k, m in _spoilt(intact).items()}
    frame = effects(intact, spoilt, LABELS, reference, resamples=80)
    assert failing(frame) == (blind,)
    row = verdicts(frame).set_index("measure").loc[blind]
    assert row.verdict == "dropped" and row.missed and row.weakest == 0
    low = dataclasses.replace(intact, **{blind: torch.full((N,), 0.7)})
    with_it, without = (
        score(low, LABELS, dataclasses.replace(reference, dropped=d), resamples=4) for d in ((), (blind,))
    )
    intact_score = score(intact, LABELS, dataclasses.replace(reference, dropped=(blind,)), resamples=4)
    assert with_it["quality"] < without["quality"] == intact_score["quality"]
    assert without["total"] == pytest.approx((4 * without["quality"] + without["semantic"]) / 5)


def test_a_wrong_direction_is_not_enough(reference: Reference) -> None:
    intact = _measures()
    spoilt = _spoilt(intact)
    up = intact.motion_smoothness + 0.02
    spoilt = {k: dataclasses.replace(m, motion_smoothness=up) for k, m in spoilt.items()}
    assert "motion_smoothness" in failing(effects(intact, spoilt, LABELS, reference, resamples=80))


def test_repeated_clips_move_distances_and_shuffled_captions_move_semantics(reference: Reference) -> None:
    intact = _measures()
    frame = effects(intact, _spoilt(intact), LABELS, reference, resamples=80).set_index(["damage", "measure"])
    assert frame.loc[(COLLAPSE, "frechet_real"), "change"] > 0
    assert frame.loc[("another caption's clip", "all_together"), "change"] < -0.8
    assert frame.loc[("another caption's clip", "motion_smoothness"), "change"] == 0
    # the same clips in the same resamples: no luck of the draw is left in a distance that did not change
    assert frame.loc[("another caption's clip", "frechet_real"), ["change", "low", "high"]].tolist() == [0, 0, 0]


def test_no_measure_left_makes_no_average(reference: Reference) -> None:
    gone = dataclasses.replace(reference, dropped=tuple(TESTED))
    values = score(_measures(), LABELS, gone, resamples=4).values
    assert "total" not in values and "quality" not in values and "object_class" in values


def test_verdicts_survive_a_file(reference: Reference, tmp_path) -> None:
    intact = _measures()
    spoilt = {k: dataclasses.replace(m, dynamic_degree=intact.dynamic_degree) for k, m in _spoilt(intact).items()}
    frame = effects(intact, spoilt, LABELS, reference, resamples=40)
    frame.to_csv(tmp_path / "t.csv", index=False)
    again = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype={"expected": str, "seen": str})
    assert failing(again) == failing(frame) == ("dynamic_degree",)


def test_a_change_within_the_noise_is_not_seen_however_certain() -> None:
    name = "imaging_quality"  # must fall under blur
    columns = ["damage", "measure", "intact", "damaged", "change", "low", "high", "noise"]
    rows = [("blur", name, 1.0, 0.9, -0.1, -0.11, -0.09, noise) for noise in (0.05, 0.2)]
    rows += [("blur", name, 1.0, 0.9, -0.1, -0.3, 0.1, 0.05), ("blur", name, 1.0, 1.1, 0.1, 0.09, 0.11, 0.05)]
    frame = trials._judged(pd.DataFrame(rows, columns=columns))
    assert frame.seen.tolist() == ["True", "False", "False", "False"]  # clear, small, uncertain, the wrong way
