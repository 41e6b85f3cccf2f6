"""The imported transformer computes what diffusers' LTX-Video computes."""

import pytest
import torch

from mobivid_core.ltx.checkpoint import load_transformer, save_transformer
from mobivid_core.ltx.layout import ROPE_SCALE, config_of, to_theirs
from mobivid_core.models.attention import Gelu
from mobivid_core.models.ltx import MobiVidLTXTransformer

from .conftest import example, relative, tiny_ltx


def theirs(model, latents, timestep, text, mask, scale=ROPE_SCALE, **other):
    t, h, w = latents.shape[2:]
    grid = {"num_frames": t, "height": h, "width": w, "rope_interpolation_scale": scale}
    packed = latents.flatten(2).transpose(1, 2)
    with torch.no_grad():
        made = model(packed, text, timestep, mask, **(grid | other), return_dict=False)[0]
    return made.transpose(1, 2).unflatten(2, (t, h, w))


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 2), (3, 2, 5)])
@pytest.mark.parametrize("heads, head_dim", [(4, 8), (3, 10), (2, 6)])  # inner widths that 6 divides, and leaves 2 of
def test_forward_equals_diffusers_in_float32(tmp_path, grid, heads, head_dim):
    model = tiny_ltx(heads=heads, head_dim=head_dim)
    model.save_pretrained(tmp_path)
    latents, timestep, text, mask = example(grid)
    with torch.no_grad():
        got = load_transformer(tmp_path)(latents, timestep, text, mask).sample
    assert relative(got, theirs(model, latents, timestep, text, mask.long())) < 1e-5


def test_forward_in_bfloat16_is_as_far_from_float32_as_diffusers_own(ltx_folder):
    exact = tiny_ltx()
    latents, timestep, text, mask = example()
    expected = theirs(exact, latents, timestep, text, mask.long())
    half = tiny_ltx().bfloat16()
    halved = theirs(half, latents.bfloat16(), timestep, text.bfloat16(), mask.long())
    with torch.no_grad():
        ours = load_transformer(ltx_folder, torch.bfloat16)
        got = ours(latents.bfloat16(), timestep, text.bfloat16(), mask).sample
    assert got.dtype == torch.bfloat16
    # rounding is random: ours may be a little better or worse than theirs, never another order of magnitude
    assert relative(got, expected) < 2 * relative(halved, expected) < 0.2


def test_scale_of_positions_matters_and_is_the_pipeline_s(ltx_folder):
    model, ours = tiny_ltx(), load_transformer(ltx_folder)
    latents, timestep, text, mask = example()
    slow = (8 / 12, 32.0, 32.0)
    expected = theirs(model, latents, timestep, text, mask.long(), scale=slow)
    with torch.no_grad():
        got = load_transformer(ltx_folder, rope_scale=slow)(latents, timestep, text, mask).sample
        other = ours(latents, timestep, text, mask).sample
    assert relative(got, expected) < 1e-5 < 1e-3 < relative(other, expected)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("coordinates", [False, True])
def test_the_adapter_takes_diffusers_own_call(ltx_folder, per_token, coordinates):
    model, ours = tiny_ltx(), MobiVidLTXTransformer.of(load_transformer(ltx_folder))
    latents, timestep, text, mask = example()
    mask[1] = False  # a caption without a real token: diffusers attends to its padding
    if per_token:
        timestep = timestep[:, None] * torch.rand(2, 12, generator=torch.Generator().manual_seed(0))
    other = {}
    if coordinates:
        other = {"video_coords": torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(1)) * 100}
    expected = theirs(model, latents, timestep, text, mask.long(), **other)
    assert relative(theirs(ours, latents, timestep, text, mask.long(), **other), expected) < 1e-5


def test_shards_and_types_of_every_kind_are_read(tmp_path, ltx_folder):
    whole = load_transformer(ltx_folder)
    tiny_ltx().save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    for name, value in load_transformer(tmp_path / "sharded").state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])
    for dtype, wanted in ((torch.float16, torch.float16), (torch.float64, torch.float32)):
        tiny_ltx().to(dtype).save_pretrained(tmp_path / str(dtype))
        assert load_transformer(tmp_path / str(dtype)).dtype == wanted


def test_there_and_back(tmp_path, ltx_folder):
    model = load_transformer(ltx_folder)
    back = to_theirs(model.state_dict(), model.config.head_dim)
    theirs = tiny_ltx().state_dict()
    assert back.keys() == theirs.keys() and all(torch.equal(back[name], value) for name, value in theirs.items())
    assert config_of(model.sizes).items() <= dict(tiny_ltx().config).items()
    save_transformer(model, tmp_path / "ours")
    again = load_transformer(tmp_path / "ours")
    assert again.sizes == model.sizes and again.config.rope_scale == model.config.rope_scale
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


def test_the_written_out_gelu_is_the_tanh_one_and_stays_finite(monkeypatch):
    x = torch.linspace(-8, 8, 1001)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(Gelu("tanh")(x), expected, atol=1e-6, rtol=1e-6)
    huge = torch.tensor([-60000.0, -300.0, 300.0, 60000.0]).half()
    assert torch.equal(Gelu("tanh")(huge), torch.tensor([0.0, 0.0, 300.0, 60000.0]).half())
