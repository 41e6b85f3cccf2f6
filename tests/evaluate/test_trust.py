import dataclasses
from types import SimpleNamespace

import pandas as pd
import torch

from mobivid_core.data.captions import label_indices
from mobivid_core.data.render import label_of
from mobivid_core.evaluate.measures import ClipMeasures
from mobivid_core.evaluate.trust import trust_table


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
