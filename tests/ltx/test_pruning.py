"""Norm and rotary table across heads: a masked model is the pruned model, and scores see the norm."""

import json

import numpy as np
import pytest
import torch

from mobivid_core.ltx.checkpoint import load_transformer, save_transformer
from mobivid_core.models.dit import Gates
from mobivid_core.models.ltx import MobiVidLTXTransformer
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.surgery import gates_for, prune
from mobivid_core.sensitivity.attention_span import other_frame_attention
from mobivid_core.sensitivity.calibration import calibration_set
from mobivid_core.sensitivity.damage import exact_sensitivity, first_order_taylor, gauss_newton_sensitivity
from mobivid_core.sensitivity.kd import reference

from .conftest import CHANNELS, TEXT, example, relative


@pytest.fixture()
def model(ltx_folder):
    return load_transformer(ltx_folder)


def calibration(samples=6):
    g = torch.Generator().manual_seed(3)
    mask = torch.ones(samples, 5, dtype=torch.bool)
    return calibration_set(
        torch.randn(samples, CHANNELS, 2, 2, 3, generator=g), torch.randn(samples, 5, TEXT, generator=g), mask
    )


def plan_of(model, blocks, self_heads, cross_heads, neurons):
    return PruningPlan(
        model.sizes, blocks, (self_heads,) * len(blocks), (cross_heads,) * len(blocks), (neurons,) * len(blocks)
    )


ALL, NEURONS = tuple(range(4)), tuple(range(128))
CUTS = {
    "blocks": ((0, 2), ALL, ALL, NEURONS),
    "self heads": ((0, 1, 2), (0, 3), ALL, NEURONS),
    "cross heads": ((0, 1, 2), ALL, (1, 2), NEURONS),
    "neurons": ((0, 1, 2), ALL, ALL, tuple(range(3, 120, 2))),
    "all": ((1, 2), (1, 2, 3), (2,), tuple(range(0, 128, 3))),
    "whole layers": ((0, 2), (), (), ()),
}


@pytest.mark.parametrize("cut", CUTS)
def test_masked_equals_pruned(model, cut):
    plan = plan_of(model, *CUTS[cut])
    small, inputs = prune(model, plan), example()
    with torch.no_grad():
        masked = model(*inputs, gates=gates_for(plan, model.sizes)).sample
        got = small(*inputs).sample
    assert relative(got, masked) < 1e-5
    assert (
        sum(p.numel() for p in small.parameters()) == plan.parameters == parameter_cost(model.sizes).total(plan.sizes)
    )


def test_a_pruned_model_can_be_pruned_again(model):
    once = prune(model, plan_of(model, (0, 1, 2), (0, 2, 3), ALL, NEURONS))
    assert once.sizes.rope_heads == ((0, 2, 3),) * 3
    plan = plan_of(once, (0, 2), (1, 2), (0, 3), NEURONS)
    twice = prune(once, plan)
    assert twice.sizes.rope_heads == ((2, 3),) * 2
    with torch.no_grad():
        masked = once(*example(), gates=gates_for(plan, once.sizes)).sample
        assert relative(twice(*example()).sample, masked) < 1e-5


def test_a_kept_head_keeps_its_slice_of_the_table(model):
    """Were the slices counted anew, a pruned model would turn its heads by the wrong angles."""
    plan = plan_of(model, (0, 1, 2), (1, 3), ALL, NEURONS)
    small = prune(model, plan)
    for block in small.blocks:
        block.attn1.rope_runs = [(0, 2)]
    with torch.no_grad():
        masked = model(*example(), gates=gates_for(plan, model.sizes)).sample
        assert relative(small(*example()).sample, masked) > 1e-3


def test_plans_files_and_stages_carry_the_options(model, tmp_path):
    plan = plan_of(model, (0, 2), (1, 3), (0, 1, 2), NEURONS[:64])
    assert PruningPlan.from_json(plan.to_json()) == plan
    small = prune(model, plan)
    save_transformer(small, tmp_path)
    again = load_transformer(tmp_path)
    assert again.sizes == small.sizes == plan.sizes
    assert json.loads((tmp_path / "config.json").read_text())["rope_heads"] == [[1, 3], [1, 3]]
    batch = calibration(2)
    x, context = again.enter(*batch.inputs)
    for b in range(2):
        x = again.run_block(b, x, context)
    whole = again(batch.noisy, batch.timestep, batch.text, batch.mask).sample
    assert relative(again.leave(x, context), whole) < 1e-6
    adapted = MobiVidLTXTransformer.of(small)
    adapted.save_pretrained(tmp_path / "adapted")
    assert load_transformer(tmp_path / "adapted").sizes == small.sizes


def test_gates_at_one_change_nothing_and_a_single_gate_for_each_sample_works(model):
    inputs = example()
    with torch.no_grad():
        plain = model(*inputs).sample
        gates = Gates.ones(model.sizes, batch=2)
        assert relative(model(*inputs, gates=gates).sample, plain) < 1e-6
        gates.self_heads[1][1, 2] = 0  # of the second sample alone
        other = model(*inputs, gates=gates).sample
    assert relative(other[0], plain[0]) < 1e-6 < 1e-3 < relative(other[1], plain[1])


def test_scores_of_heads_include_the_norm(model):
    """A head whose output is nothing still holds the others' norm up: removing it does damage, and scores say so."""
    for block in model.blocks:
        block.attn1.to_v.weight[:8].zero_()
        block.attn1.to_v.bias[:8].zero_()
        block.attn1.to_q.weight[:8] *= 3
        block.attn1.norm_q.weight.mul_(3)
    answers = reference(model, calibration())
    exact = exact_sensitivity(model, answers, units=("heads",), progress=False).scores
    estimated, _ = gauss_newton_sensitivity(model, answers, probes=16)
    for block in range(3):
        assert exact.self_heads[block][0] > 1e-6
        assert estimated.self_heads[block][0] > 1e-6
    assert first_order_taylor(model, answers) < 1e-6
    # one score is a half of a second derivative, the other a finite change: they rank alike
    order = np.corrcoef(exact.flat("heads").argsort().argsort(), estimated.flat("heads").argsort().argsort())[0, 1]
    assert order > 0.7


def test_attention_of_other_frames_is_measured_with_the_model_s_own_rotation(model):
    shares = other_frame_attention(model, calibration(2))
    assert [len(s) for s in shares] == [4, 4, 4] and all((0 < s).all() and (s < 1).all() for s in shares)
