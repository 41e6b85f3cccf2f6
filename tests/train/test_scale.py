"""Memory of paper-scale training: exact where it can be checked, and what must fall falls."""

import pytest
import torch

from mobivid_core.models.config import SERVER, DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.train.scale import GIB, activations, memory_table, meta_model

SMALL = DiTConfig.uniform(blocks=3, heads=2, ffn=32, hidden=16, head_dim=8, in_channels=4, text_dim=8)


def test_paper_scale_shapes_on_the_meta_device():
    model = meta_model(SERVER)
    assert sum(p.numel() for p in model.parameters()) == 1_916_569_728
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_state_is_counted_exactly_and_shared_by_the_gpus():
    parameters = sum(p.numel() for p in MobiVidTransformer3DModel.from_sizes(SMALL).parameters())
    table = memory_table(SMALL, gpus=(1, 2, 8), grid=(1, 2, 2)).set_index("gpus")
    state = table[["weights", "gradients", "AdamW moments", "averaged weights"]].sum(axis=1)
    assert state[1] == pytest.approx(20 * parameters / GIB)
    assert state[1] == pytest.approx(8 * state[8])
    assert (table["total, checkpointed"] < table["total"]).all() and table["total"].is_monotonic_decreasing


def test_state_bytes_are_those_of_a_real_optimiser():
    model = MobiVidTransformer3DModel.from_sizes(SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    moments = sum(v.nbytes for s in optimizer.state.values() for k, v in s.items() if k != "step")
    assert memory_table(SMALL, gpus=(1,), grid=(1, 2, 2))["AdamW moments"].item() * GIB == pytest.approx(moments)


def test_activations_are_linear_in_tokens_and_shrink_with_checkpointing():
    one, two, three = (activations(SMALL, (t, 4, 5)).kept for t in (1, 2, 3))
    assert two - one == three - two > 0  # attention scores would make it quadratic
    deep = DiTConfig.uniform(blocks=6, heads=2, ffn=32, hidden=16, head_dim=8, in_channels=4, text_dim=8)
    shallow, deeper = activations(SMALL, (1, 4, 5)), activations(deep, (1, 4, 5))
    assert deeper.kept > 1.6 * shallow.kept
    # three more blocks cost three more inputs, 20 tokens x 16 channels x 2 bytes each
    assert deeper.checkpointed - shallow.checkpointed == 3 * 20 * 16 * 2
