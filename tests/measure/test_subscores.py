"""Sub-scores against PSNR: the judge reads all of the originals and nothing of grey, and thresholds are exact."""

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.measure.minivbench import QUALITY
from mobivid_core.measure.subscores import READ, subscores, thresholds


def test_a_threshold_lies_between_its_points():
    flat = {name: [1.0, 1.0, 1.0, 1.0] for name in (*READ, *QUALITY)}
    # 0.90 at 20 dB and 1.00 at 24 dB cross 0.95 halfway; colour never falls; shape is lost at every version
    falling = flat | {"motion": [1.0, 0.5, 0.9, 1.0], "shape": [1.0, 0.1, 0.2, 0.3]}
    table = pd.DataFrame({"version": ["original", "a", "b", "c"], "psnr_db": [np.nan, 16.0, 20.0, 24.0], **falling})
    found = thresholds(table).set_index("sub-score")
    assert found.psnr_db_needed["motion"] == pytest.approx(22.0)
    assert np.isnan(found.psnr_db_needed["colour"]) and np.isnan(found.psnr_db_needed["shape"])
    assert found.lowest["motion"] == 0.5


def test_grey_clips_lose_what_captions_say(judge, real):
    grey = torch.zeros_like(real.clips[:12])
    table = subscores({"grey": grey}, real.clips[:12], real.labels[:12], judge, looked_at=4)
    original, lost = table.iloc[0], table.iloc[1]
    assert original["all"] > lost["all"] and np.isnan(original.psnr_db) and lost.psnr_db > 0
    assert lost.imaging_quality < original.imaging_quality and lost.temporal_flickering == pytest.approx(1)
    with pytest.raises(ParameterError, match="a label for each clip"):
        subscores({"grey": grey}, real.clips[:12], real.labels[:3], judge)
