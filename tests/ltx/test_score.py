"""Scores sample by sample equal those of the whole set; streamed blocks and bfloat16 give them too."""

import numpy as np
import pytest
import torch

from mobivid_core.ltx.checkpoint import load_transformer, on_device
from mobivid_core.ltx.score import score
from mobivid_core.sensitivity.damage import exact_sensitivity
from mobivid_core.sensitivity.kd import Reference, forward
from mobivid_core.sensitivity.scores import UNIT_KINDS, Scores

from .test_pruning import calibration


def test_the_mean_over_samples_is_the_damage_over_the_set(ltx_folder, tmp_path):
    """With many probes the estimate approaches half the second derivative; exact removal tells its size."""
    model, samples = load_transformer(ltx_folder), calibration(4)
    found = score(model, samples, 24, 0, tmp_path)
    with torch.no_grad():
        answers = Reference(samples, forward(model, samples)[0])
    exact = exact_sensitivity(model, answers, units=("heads",), progress=False).scores
    rank = np.corrcoef(found.flat("heads").argsort().argsort(), exact.flat("heads").argsort().argsort())[0, 1]
    assert rank > 0.7
    # a finite removal is no second derivative: of the same size, within a factor
    assert 0.3 < np.median(found.flat("heads") / exact.flat("heads")) < 3


def test_an_interrupted_run_goes_on_and_gives_the_same(ltx_folder, tmp_path, monkeypatch):
    model, samples = load_transformer(ltx_folder), calibration(3)
    whole = score(model, samples, 2, 0, tmp_path / "whole")
    save, made = Scores.save, []

    def stop(part, folder):
        save(part, folder)
        made.append(part.estimator)
        if part.estimator == "sample-0001" and len(made) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Scores, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        score(model, samples, 2, 0, tmp_path / "parts")
    again = score(model, samples, 2, 0, tmp_path / "parts")
    assert made == ["sample-0000", "sample-0001", "sample-0002", "gauss_newton_2"]  # none is done twice
    for kind in UNIT_KINDS:
        np.testing.assert_array_equal(again.flat(kind), whole.flat(kind))
    assert Scores.load(tmp_path / "parts", "gauss_newton_2").estimator == "gauss_newton_2"


def test_blocks_streamed_from_disk_give_the_same_scores(ltx_folder, tmp_path):
    samples = calibration(2)
    resident = score(load_transformer(ltx_folder), samples, 2, 0, tmp_path / "a")
    streamed = on_device(load_transformer(ltx_folder), torch.device("cpu"), stream=True)
    assert all(p.device.type == "meta" for p in streamed.blocks.parameters())
    found = score(streamed, samples, 2, 0, tmp_path / "b")
    for kind in UNIT_KINDS:
        np.testing.assert_allclose(found.flat(kind), resident.flat(kind), rtol=1e-5)


def test_bfloat16_ranks_as_float32(ltx_folder, tmp_path):
    samples = calibration(4)
    exact = score(load_transformer(ltx_folder), samples, 4, 0, tmp_path / "a")
    half = score(load_transformer(ltx_folder, torch.bfloat16), samples, 4, 0, tmp_path / "b")
    rank = np.corrcoef(half.flat("heads").argsort().argsort(), exact.flat("heads").argsort().argsort())[0, 1]
    assert rank > 0.9  # the same probes: only the rounding differs
