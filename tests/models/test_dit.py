"""The DiT against diffusers' LTX-Video transformer and against what it must satisfy exactly."""

import diffusers
import pytest
import torch
from torch import nn

from mobivid_core.errors import ParameterError
from mobivid_core.models import dit as dit_module
from mobivid_core.models.config import MINI_MOBILE, MINI_SERVER, MOBILE, SERVER, DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel

UNEVEN = DiTConfig(24, 8, (3, 0, 2), (0, 2, 1), (16, 0, 24), in_channels=5, text_dim=12)


def build(sizes=UNEVEN, seed=0):
    """A model with random weights everywhere: an untrained one predicts zero, which hides errors."""
    torch.manual_seed(seed)
    model = MobiVidTransformer3DModel.from_sizes(sizes).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def inputs(sizes=UNEVEN, batch=2, grid=(2, 3, 2), text=5, seed=1):
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, sizes.in_channels, *grid, generator=g)
    mask = torch.arange(text)[None] < torch.tensor([[text], [2]])[:batch]
    return latents, torch.tensor([950.0, 130.0])[:batch], torch.randn(batch, text, sizes.text_dim, generator=g), mask


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_paper_scale_counts_are_exact():
    with torch.device("meta"):
        server, mobile = (MobiVidTransformer3DModel.from_sizes(s) for s in (SERVER, MOBILE))
        theirs = diffusers.LTXVideoTransformer3DModel(caption_channels=768)
    assert count(server) == count(theirs) == 1_916_569_728
    assert count(mobile) == 959_697_024


def test_the_miniatures_keep_the_paper_s_attention_to_ffn_ratio():
    for sizes in (MINI_SERVER, SERVER):
        with torch.device("meta"):
            block = MobiVidTransformer3DModel.from_sizes(sizes).blocks[0]
        ratio = (count(block.attn1) + count(block.attn2)) / count(block.ffn)
        assert 0.98 < ratio < 1.02  # biases and norm weights make it differ from 1
    assert MINI_MOBILE.blocks / MINI_SERVER.blocks == MOBILE.blocks / SERVER.blocks


def _copy_from_ltx(ours, theirs):
    """Carry LTX weights over by name; the two layouts hold the same tensors."""
    names = {
        "blocks.": "transformer_blocks.",
        ".to_out.": ".to_out.0.",
        ".ffn.up.": ".ff.net.0.proj.",
        ".ffn.down.": ".ff.net.2.",
        "time_embed.linear_1": "time_embed.emb.timestep_embedder.linear_1",
        "time_embed.linear_2": "time_embed.emb.timestep_embedder.linear_2",
        "caption_projection.0": "caption_projection.linear_1",
        "caption_projection.2": "caption_projection.linear_2",
    }
    source, used = theirs.state_dict(), set()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            for mine, other in names.items():
                name = name.replace(mine, other)
            parameter.copy_(source[name].reshape(parameter.shape))
            used.add(name)
    assert used == set(source)


def test_forward_agrees_with_diffusers_ltx(monkeypatch):
    """With one head, norm per head is norm over all heads; rotation is switched off and GELU made exact in theirs."""
    torch.manual_seed(0)
    theirs = diffusers.LTXVideoTransformer3DModel(
        in_channels=5,
        out_channels=5,
        num_attention_heads=1,
        attention_head_dim=12,
        cross_attention_dim=12,
        num_layers=2,
        activation_fn="gelu",
        caption_channels=7,
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.caption_projection.act_1 = nn.GELU()
    theirs.rope.forward = lambda x, *rest: (torch.ones(1), torch.zeros(1))
    sizes = DiTConfig(12, 12, (1, 1), (1, 1), (48, 48), in_channels=5, text_dim=7)
    ours = build(sizes)
    _copy_from_ltx(ours, theirs)
    monkeypatch.setattr(dit_module, "rotary_table", lambda *rest: (torch.ones(1), torch.zeros(1)))
    x, timestep, text, mask = inputs(sizes)
    got = ours(x, timestep, text, mask).sample
    expected = theirs(x.flatten(2).transpose(1, 2), text, timestep, mask.long(), return_dict=False)[0]
    # float32 round-off over two blocks; values are of order 1 to 10.
    torch.testing.assert_close(got.flatten(2).transpose(1, 2), expected, atol=1e-4, rtol=1e-4)


def test_an_untrained_model_predicts_zero_and_can_learn():
    model = MobiVidTransformer3DModel.from_sizes(UNEVEN)
    sample = model(*inputs()).sample
    assert sample.shape == (2, 5, 2, 3, 2) and sample.abs().max() == 0
    (sample - 1).square().mean().backward()
    assert model.proj_out.weight.grad.abs().max() > 0


def test_every_parameter_takes_part():
    model = build()
    model(*inputs()).sample.square().sum().backward()
    idle = [n for n, p in model.named_parameters() if p.numel() and (p.grad is None or not p.grad.abs().max() > 0)]
    assert not idle


def test_padded_text_has_no_effect():
    model, (x, t, text, mask) = build(), inputs()
    changed = torch.where(mask[..., None], text, text + 100)
    torch.testing.assert_close(model(x, t, text, mask).sample, model(x, t, changed, mask).sample)
    assert (model(x, t, text).sample - model(x, t, changed).sample).abs().max() > 1e-3


def test_masks_may_be_bool_integer_or_additive():
    model, (x, t, text, mask) = build(), inputs()
    additive = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    expected = model(x, t, text, mask).sample
    for form in (mask.long(), additive):
        torch.testing.assert_close(model(x, t, text, form).sample, expected)


def test_samples_do_not_see_each_other():
    model, (x, t, text, mask) = build(), inputs()
    alone = model(x[1:], t[1:], text[1:], mask[1:]).sample
    torch.testing.assert_close(model(x, t, text, mask).sample[1:], alone, atol=1e-5, rtol=1e-5)


def test_positions_matter_and_follow_the_axes():
    """Without positions a transformer commutes with a swap of tokens; with them it must not."""
    model = build(DiTConfig.uniform(blocks=1, heads=2, ffn=8, hidden=16, head_dim=8, in_channels=5, text_dim=12))
    x, t, text, mask = inputs()
    for axis in (2, 3, 4):
        flipped = model(x.flip(axis), t, text, mask).sample.flip(axis)
        assert (flipped - model(x, t, text, mask).sample).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 4, 4), (3, 2, 5)])
def test_any_grid_runs(grid):
    assert build()(*inputs(grid=grid)).sample.shape == (2, 5, *grid)


def test_modulation_replaces_the_timestep():
    model, (x, t, text, mask) = build(), inputs()
    modulation = model.time_embed(t)
    assert modulation[0].shape == (2, 6, 24) and modulation[1].shape == (2, 24)
    assert torch.equal(model(x, None, text, mask, modulation=modulation).sample, model(x, t, text, mask).sample)


def test_features_are_the_states_after_the_blocks_asked_for():
    model, arguments = build(), inputs()
    seen = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda m, a, out, i=i: seen.__setitem__(i, out))
    output = model(*arguments, feature_blocks=(2, 0))
    assert torch.equal(output.features[0], seen[2]) and torch.equal(output.features[1], seen[0])
    sample, features = model(*arguments, return_dict=False)
    assert torch.equal(sample, output.sample) and features == ()


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for on in (False, True):
        model = build().train()
        if on:
            model.enable_gradient_checkpointing()
        model(*inputs()).sample.square().sum().backward()
        gradients.append(model.blocks[0].attn1.to_q.weight.grad)
    torch.testing.assert_close(*gradients)


def test_save_and_load_round_trip(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    again = MobiVidTransformer3DModel.from_pretrained(tmp_path)
    assert again.sizes == UNEVEN and sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert torch.equal(again(*inputs()).sample, model(*inputs()).sample)


def test_export_keeps_the_answer_and_needs_no_keyword_that_core_ml_drops():
    model, arguments = build(), inputs()
    exported = torch.export.export(model, arguments, {"return_dict": False}).run_decompositions({})
    torch.testing.assert_close(exported.module()(*arguments, return_dict=False)[0], model(*arguments).sample)
    calls = [n for n in exported.graph.nodes if n.op == "call_function"]
    # coremltools 9.0 ignores these silently, which would change the numbers.
    assert not [n for n in calls if {"approximate", "alpha"} & set(n.kwargs)]


def test_wrong_input_says_what_is_expected():
    model, (x, t, text, mask) = build(), inputs()
    with pytest.raises(ParameterError, match=r"\(B, 5, t, h, w\)"):
        model(x[:, :4], t, text, mask)
    with pytest.raises(ParameterError, match="feature_blocks"):
        model(x, t, text, mask, feature_blocks=(3,))
    with pytest.raises(ParameterError, match="one entry a block"):
        MobiVidTransformer3DModel(24, 8, [1, 1], [1], [4])
