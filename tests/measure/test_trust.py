import dataclasses
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from mobivid_core.data.captions import label_indices
from mobivid_core.data.render import label_of
from mobivid_core.errors import ParameterError
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.measures import ClipMeasures
from mobivid_core.measure.minivbench import SPACES, Reference, space_features
from mobivid_core.measure.quality import ImagingReference
from mobivid_core.measure.trust import space_table, trust_table, trusted_space


def test_readers_stand_beside_each_other_and_blanks_stay_blank() -> None:
    labels = [label_of("test", i) for i in range(8)]
    truth = label_indices(labels)
    real = ClipMeasures(truth, torch.zeros(8, 2), torch.zeros(8, 3), *[torch.ones(8)] * 6, truth[:, [1, 2]])
    blurred = truth.clone()
    blurred[:2, 0] = (blurred[:2, 0] + 1) % 8
    codec = dataclasses.replace(real, classes=blurred)
    recorded = pd.DataFrame(
        [{"clips": "val (16)", "shape": 1.0, "colour": 1.0, "motion": 0.5, "background": 1.0, "all": 0.5}]
    )
    frame = trust_table(recorded, SimpleNamespace(labels=labels, real=real, reconstruction=codec))
    assert frame.reader.tolist() == ["judge", "judge", "no network", "judge", "no network"]
    assert frame.clips[0] == "when trained: val (16)" and frame.motion[0] == 0.5
    assert frame["shape"].tolist()[1::2] == [1.0, 0.75] and frame["all"].tolist()[1::2] == [1.0, 0.75]
    assert frame.loc[2, ["colour", "motion"]].tolist() == [1.0, 1.0] and pd.isna(frame.loc[2, "shape"])


def _trials(missed_by_judge: str, missed_by_image: str, strength: float = 9.0) -> pd.DataFrame:
    """Two distances that had to rise under blur, noise and a grid; `missed_*` names what they did not see."""
    rows = []
    for measure, missed, size in (
        ("frechet_real", missed_by_judge, 2.0),
        ("image_frechet_real", missed_by_image, strength),
    ):
        for damage in ("blur", "noise", "token grid"):
            seen = str(damage not in missed)
            rows.append({"damage": damage, "measure": measure, "in_noise": size, "expected": "rises", "seen": seen})
        rows.append({"damage": "reversed", "measure": measure, "in_noise": 0.1, "expected": "", "seen": ""})
    return pd.DataFrame(rows)


def test_the_space_that_passed_is_trusted_whichever_it_is() -> None:
    image, judge = trusted_space(_trials("blur, noise", "")), trusted_space(_trials("", "blur"))
    assert image.real == "image_frechet_real" and image.missed == ()
    assert judge.real == "frechet_real" and judge.missed == ()
    assert space_table(_trials("blur, noise", "")).passed.tolist() == ["no", "yes"]


def test_of_two_that_passed_the_more_sensitive_one_is_trusted() -> None:
    assert trusted_space(_trials("", "", strength=9.0)).column == "image_features"
    assert trusted_space(_trials("", "", strength=1.0)).column == "features"


def test_where_none_passed_the_choice_says_so() -> None:
    space = trusted_space(_trials("blur, noise", "blur"))
    assert space.column == "image_features"
    assert space.missed == ("blur",) and "missed blur" in space.finding()
    assert SPACES["judge"].missed is None and "not tried" in SPACES["judge"].finding()


def test_distances_are_taken_in_the_trusted_space() -> None:
    measures = ClipMeasures(
        torch.zeros(8, 4, dtype=torch.long),
        torch.randn(8, 2),
        torch.zeros(8, 3),
        *[torch.ones(8)] * 6,
        image_features=torch.randn(8, 5),
    )
    axes = ImageAxes.fit(measures.image_features)
    imaging = ImagingReference.fit(torch.randn(8, 3))
    target = axes.project(measures.image_features)
    reference = Reference(imaging, torch.randn(6, 2), image_axes=axes, image_real=target)
    assert space_features(measures, reference)[1] is reference.real
    by_image = dataclasses.replace(reference, space=SPACES["image"])
    assert space_features(measures, by_image)[1] is target
    with pytest.raises(ParameterError, match="independent=True"):
        space_features(dataclasses.replace(measures, image_features=None), by_image)
    with pytest.raises(ParameterError, match="image_reconstruction"):
        space_features(measures, by_image, "reconstruction")
