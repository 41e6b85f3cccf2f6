from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mobivid_core import artifacts
from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY, label_indices
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.profiles import get_profile
from mobivid_core.train.judge import ClipPool, augment, publish_judge

MOTION = ATTRIBUTES.index("motion")


def test_augmented_labels_tell_what_augmented_clips_show(judge: Judge, real) -> None:
    truth = label_indices(real.labels)
    clips, labels = augment(real.clips, truth, torch.Generator().manual_seed(0))
    turned = labels[:, MOTION] != truth[:, MOTION]
    assert turned.any() and (labels[:, :MOTION] == truth[:, :MOTION]).all()
    read = judge.predict(clips)[:, MOTION]
    # with the labels left as they were, none of the turned clips would agree
    assert (read == labels[:, MOTION])[turned].float().mean() >= 0.8


def test_mirroring_and_reversing_never_touch_circling_and_still() -> None:
    kept = [VOCABULARY["motion"].index(m) for m in ("circling", "still")]
    truth = torch.zeros(64, 4, dtype=torch.long)
    truth[:, MOTION] = torch.tensor(kept).repeat(32)
    clips, labels = augment(torch.zeros(64, 3, 3, 16, 16), truth, torch.Generator().manual_seed(0))
    assert torch.equal(labels, truth) and clips.abs().max() <= 1


def test_the_pool_mixes_fresh_and_kept_clips_the_same_way_each_time() -> None:
    pools = [ClipPool(64, frames=1, capacity=12, fresh=0.25) for _ in range(2)]
    draws = [[pool.draw(8, np.random.default_rng(i)) for i in range(3)] for pool in pools]
    for one, other in zip(*draws, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert pools[0].rendered == 8 + 2 + 2
    assert draws[0][0][0].shape == (8, 3, 1, 64, 64) and draws[0][0][0].min() >= -1


def test_a_judge_is_published_with_its_log_and_accuracy(runs: Path) -> None:
    profile = replace(get_profile("smoke"), judge_steps=2, batch=4)
    trained = publish_judge(profile)
    found = artifacts.find("judge", "smoke")
    assert found.origin == "run"
    again = artifacts.load_model(Judge, found.path).eval()
    clip = torch.zeros(1, 3, 17, 64, 64)
    assert torch.equal(again.read(clip)[1], trained.eval().read(clip)[1])
    assert list(pd.read_csv(found.path / "accuracy.csv")) == ["clips", *ATTRIBUTES, "all"]
    assert "val_all" in pd.read_csv(found.path / "log.csv")


def test_a_perfect_reading_is_all_right() -> None:
    truth = torch.tensor([[1, 2, 3, 0]])
    assert {k: v.item() for k, v in accuracy(truth, truth).items()} == {**dict.fromkeys(ATTRIBUTES, 1.0), "all": 1.0}
