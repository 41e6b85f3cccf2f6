import dataclasses

import pytest
import torch

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.errors import ParameterError
from mobivid_core.measure.frechet import frechet_distance
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.measures import ClipMeasures, measure
from mobivid_core.measure.minivbench import (
    PIXELS,
    QUALITY,
    SEMANTIC,
    Reference,
    score,
    shuffled,
    table,
    total_score,
)
from mobivid_core.measure.quality import ImagingReference


@pytest.fixture(scope="module")
def reference(judge, others) -> Reference:
    measures = measure(others.clips, judge)
    return Reference(ImagingReference.fit(measures.imaging), measures.features)


@pytest.fixture(scope="module")
def measures(judge, real) -> ClipMeasures:
    return measure(real.clips, judge)


def _score(clips: torch.Tensor, labels, judge, reference):
    return score(measure(clips, judge), labels, reference, resamples=20)


def test_real_clips_score_high_and_shuffled_captions_low(measures, real, reference) -> None:
    honest = score(measures, real.labels, reference, resamples=50)
    blind = score(measures, shuffled(real.labels), reference, resamples=50)
    assert honest["semantic"] > 0.85 and honest["all_together"] > 0.6
    assert blind["semantic"] < 0.5 and blind["all_together"] < 0.1
    assert blind["quality"] == honest["quality"] and blind["frechet_real"] == honest["frechet_real"]
    assert all(low <= value <= high for name, (value, low, high) in honest.values.items() if "frechet" not in name)


def test_total_is_vbenchs(measures, real, reference) -> None:
    scores = score(measures, real.labels, reference, resamples=5)
    assert scores["total"] == pytest.approx((4 * scores["quality"] + scores["semantic"]) / 5)
    assert scores["semantic"] == pytest.approx(sum(scores[name] for name in SEMANTIC) / 4)
    # VBench counts dynamic degree half: 5.5 parts in all
    weighted = sum(scores[name] * (0.5 if name == "dynamic_degree" else 1) for name in QUALITY)
    assert scores["quality"] == pytest.approx(weighted / 5.5)
    assert total_score(0.8, 0.3) == pytest.approx(0.7)
    assert all(0 <= scores[name] <= 1 for name in (*QUALITY, *SEMANTIC, "total"))


def test_dropped_dimensions_count_in_no_average(measures, real, reference) -> None:
    fewer = dataclasses.replace(reference, dropped=("dynamic_degree", "color"))
    scores = score(measures, real.labels, fewer, resamples=5)
    kept = [name for name in QUALITY if name != "dynamic_degree"]
    assert scores["quality"] == pytest.approx(sum(scores[name] for name in kept) / 5)
    assert scores["semantic"] == pytest.approx(sum(scores[name] for name in SEMANTIC if name != "color") / 3)


def test_frozen_clips_lose_motion_and_action(judge, real, reference, measures) -> None:
    honest = score(measures, real.labels, reference, resamples=5)
    frozen = _score(real.clips[:, :, :1].expand_as(real.clips), real.labels, judge, reference)
    assert frozen["dynamic_degree"] == 0 < honest["dynamic_degree"]
    assert frozen["action"] < honest["action"] - 0.4
    assert frozen["temporal_flickering"] == pytest.approx(1, abs=1e-6)  # float32 means
    assert frozen["temporal_flickering"] > honest["temporal_flickering"]


def test_shuffled_frames_lose_smoothness(judge, real, reference, measures) -> None:
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    jumbled = _score(real.clips[:, :, order], real.labels, judge, reference)
    honest = score(measures, real.labels, reference, resamples=5)
    for name in ("motion_smoothness", "temporal_flickering", "action"):
        assert jumbled[name] < honest[name]
    assert jumbled["warping_error"] > honest["warping_error"]


def test_wrong_colours_are_noticed(judge, real, reference, measures) -> None:
    honest = score(measures, real.labels, reference, resamples=5)
    swapped = _score(real.clips.flip(1), real.labels, judge, reference)
    assert swapped["color"] < honest["color"] - 0.4
    assert abs(swapped["action"] - honest["action"]) < 0.2


def test_a_wrong_caption_costs_its_own_dimension_only(measures, real, reference) -> None:
    colours = VOCABULARY["colour"]
    wrong = [dataclasses.replace(x, colour=colours[(colours.index(x.colour) + 1) % len(colours)]) for x in real.labels]
    honest, lying = (score(measures, labels, reference, resamples=5) for labels in (real.labels, wrong))
    assert lying["color"] <= 1 - honest["color"] and lying["object_class"] == honest["object_class"]


@pytest.mark.parametrize("damage", ["blur", "noise", "repeat", "freeze"])
def test_the_distance_grows_with_damage(judge, real, reference, measures, damage: str) -> None:
    clips = real.clips
    if damage == "repeat":
        clips = clips[:4].repeat(8, 1, 1, 1, 1)
    elif damage == "noise":
        clips = clips + 0.8 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    elif damage == "freeze":
        clips = clips[:, :, :1].expand_as(clips)
    else:
        clips = torch.nn.functional.avg_pool3d(clips, (1, 16, 16)).repeat_interleave(16, 3).repeat_interleave(16, 4)
    honest = frechet_distance(measures.features, reference.real)
    # with 32 clips the floor between two real sets is high: a fifth more is clear of it
    assert frechet_distance(judge.read(clips)[1], reference.real) > 1.2 * honest


def test_quality_can_be_left_blank(judge, real, reference, measures) -> None:
    quick = score(measure(real.clips[:8], judge, quality=False), real.labels[:8], reference, resamples=5)
    assert set(quick.values) == {*SEMANTIC, *PIXELS, "semantic", "all_together", "frechet_real"}
    full = score(measures[:8], real.labels[:8], reference, resamples=5)
    assert quick["semantic"] == full["semantic"]


def test_measures_select_and_join(measures) -> None:
    halves = ClipMeasures.join([measures[:10], measures[torch.arange(10, 32)]])
    assert len(halves) == 32 and torch.equal(halves.features, measures.features)
    assert torch.equal(halves.readback, measures.readback) and halves.image_features is None
    blank = dataclasses.replace(measures[:10], readback=None)
    assert ClipMeasures.join([blank, measures[10:]]).readback is None  # what a part lacks, the whole lacks
    with pytest.raises(ParameterError, match="no batches"):
        ClipMeasures.join([])


def test_the_second_feature_space_is_measured_on_demand(judge, real, others) -> None:
    far = measure(others.clips[:12], judge, quality=False, independent=True)
    axes = ImageAxes.fit(far.image_features)
    imaging = ImagingReference.fit(measure(others.clips[:12], judge).imaging)
    ours = Reference(imaging, far.features, image_axes=axes, image_real=axes.project(far.image_features))
    values = score(measure(real.clips[:12], judge, independent=True), real.labels[:12], ours, resamples=4).values
    assert values["image_frechet_real"][0] > 0 and "image_frechet_reconstruction" not in values


def test_colour_and_motion_without_a_network_stand_beside_the_judge(measures, real, reference) -> None:
    scores = score(measures, real.labels, reference, resamples=5)
    assert scores["color_pixels"] > 0.85 and scores["action_flow"] > 0.8


def test_table_has_a_value_and_its_interval(measures, real, reference) -> None:
    scores = score(measures, real.labels, reference, resamples=5)
    frame = table({"real clips": scores}, ["total", "frechet_reconstruction"])
    assert list(frame) == [
        "clips",
        "n",
        "interval",
        "total",
        "total_low",
        "total_high",
        "frechet_reconstruction",
        "frechet_reconstruction_low",
        "frechet_reconstruction_high",
    ]
    assert frame.frechet_reconstruction.isna().all()  # this reference has no reconstructions


def test_mistakes_are_named(measures, real, reference) -> None:
    with pytest.raises(ParameterError, match="32 clips but 3 labels"):
        score(measures, real.labels[:3], reference)
    with pytest.raises(ParameterError, match="no score 'beauty'"):
        score(measures, real.labels, reference, resamples=2)["beauty"]
