"""Masked equals physically pruned, at every level and for all of them together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mobivid_core.artifacts import load_model, save_model
from mobivid_core.errors import ParameterError
from mobivid_core.models.config import MOBILE, SERVER
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets, plan_for_budget, uniform_plan
from mobivid_core.prune.search import without_blocks
from mobivid_core.prune.surgery import gates_for, prune
from mobivid_core.sensitivity.estimators import random_scores
from mobivid_core.sensitivity.kd import forward

# float32: the same numbers are summed in another order, over a few dozen terms of order one.
TOLERANCE = 1e-5


@pytest.mark.parametrize("levels", [("blocks",), ("heads",), ("ffn",), ("blocks", "heads", "ffn")])
@pytest.mark.parametrize("emptied", [True, False])
def test_masked_equals_pruned(teacher, calibration, levels, emptied) -> None:
    whole = sum(p.numel() for p in teacher.parameters())
    plan = plan_for_budget(random_scores(teacher.sizes, seed=3), teacher.sizes, 0.9 * whole, levels)
    if emptied:  # whole layers of the first block
        nothing = {kind: ((), *getattr(plan, kind)[1:]) for kind in ("self_heads", "ffn")}
        plan = replace(plan, **nothing)
    small = prune(teacher, plan)
    assert sum(p.numel() for p in small.parameters()) == plan.parameters < whole
    with torch.no_grad():
        masked = teacher(
            calibration.noisy,
            calibration.timestep,
            calibration.text,
            calibration.mask,
            gates=gates_for(plan, teacher.sizes),
        ).sample
        pruned = forward(small, calibration)[0]
    assert (masked - pruned).abs().max() < TOLERANCE
    assert (forward(teacher, calibration)[0] - pruned).abs().max() > 100 * TOLERANCE  # the plan does change the model


def test_keeping_all_copies_the_model(teacher, calibration) -> None:
    copy = prune(teacher, PruningPlan.keep_all(teacher.sizes))
    assert torch.equal(forward(copy, calibration)[0], forward(teacher, calibration)[0])
    with torch.no_grad():
        copy.proj_in.weight.add_(1)  # a copy, not a view
    assert not torch.equal(copy.proj_in.weight, teacher.proj_in.weight)


def test_pruned_model_saves_and_loads(teacher, calibration, tmp_path) -> None:
    small = prune(teacher, without_blocks(teacher.sizes, (0, 2)))
    save_model(small, tmp_path)
    again = load_model(MobiVidTransformer3DModel, tmp_path)
    assert again.sizes == small.sizes and torch.equal(forward(again, calibration)[0], forward(small, calibration)[0])


def test_paper_scale_plan_counts_on_the_meta_device() -> None:
    with torch.device("meta"):
        server = MobiVidTransformer3DModel.from_sizes(SERVER)
    mobile = prune(server, uniform_plan(SERVER, Targets.of(MOBILE)))
    assert mobile.sizes == MOBILE
    assert sum(p.numel() for p in mobile.parameters()) == 959_697_024


def test_plan_for_another_model_is_refused(teacher) -> None:
    with pytest.raises(ParameterError, match="made for a model of"):
        prune(teacher, uniform_plan(MOBILE, Targets(2, 2, 2)))
