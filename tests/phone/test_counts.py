"""Counts: the closed form equals the module's parameters and torch's FLOP counter, and the published reconstruction."""

from dataclasses import replace

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import MINI_MOBILE, MINI_SERVER, MOBILE, SERVER, SMOKE_MOBILE, DiTConfig
from mobivid_core.models.counts import (
    block_flops_split,
    clip_flops,
    dit_counts,
    dit_flops,
    dit_params,
    latent_grid,
)
from mobivid_core.phone.module_counts import DIT_KINDS, counts_by_kind, module_counts
from mobivid_core.phone.part_counts import decoder_counts
from mobivid_core.phone.references import clip_text_counts

UNEVEN = DiTConfig(32, 8, (4, 0, 3), (1, 2, 0), (48, 0, 96), in_channels=16, text_dim=24)


def _meta_model(cfg: DiTConfig) -> torch.nn.Module:
    dit = pytest.importorskip("mobivid_core.models.dit")
    with torch.device("meta"):
        return dit.MobiVidTransformer3DModel.from_sizes(cfg)


def _meta_inputs(cfg: DiTConfig, grid: tuple[int, int, int], text_tokens: int) -> tuple[torch.Tensor, ...]:
    latents = torch.empty(1, cfg.in_channels, *grid, device="meta")
    states = torch.empty(1, text_tokens, cfg.text_dim, device="meta")
    return latents, torch.empty(1, device="meta"), states


@pytest.mark.parametrize("cfg", [SMOKE_MOBILE, MINI_SERVER, MINI_MOBILE, MOBILE, SERVER, UNEVEN])
def test_parameters_equal_the_module(cfg: DiTConfig) -> None:
    assert dit_params(cfg)["total"] == sum(p.numel() for p in _meta_model(cfg).parameters())


@pytest.mark.parametrize(
    ("cfg", "grid", "text"), [(MOBILE, (7, 12, 16), 77), (MINI_SERVER, (3, 4, 4), 24), (UNEVEN, (2, 3, 5), 7)]
)
def test_every_layer_kind_equals_torch_counter(cfg: DiTConfig, grid: tuple[int, int, int], text: int) -> None:
    counted = counts_by_kind(_meta_model(cfg), *_meta_inputs(cfg, grid, text), kinds=DIT_KINDS)
    closed = dit_counts(cfg, grid, text)
    assert {kind: (c.params, c.flops) for kind, c in closed.items()} == counted
    assert module_counts(_meta_model(cfg), *_meta_inputs(cfg, grid, text)).flops == closed["total"].flops


def test_text_encoder_equals_torch_counter() -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    from mobivid_core.coreml.graphs import TextStates

    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    ids = torch.zeros(1, 11, dtype=torch.int32, device="meta")
    with torch.device("meta"):
        module, mask = TextStates(CLIPTextModel(CLIPTextConfig(**sizes)), 11, causal=True), torch.zeros(1, 11)
    counted, closed = module_counts(module, ids, mask), clip_text_counts(11)
    assert (closed.params, closed.flops) == (counted.params, counted.flops)


@pytest.mark.parametrize(("grid", "width"), [((3, 2, 4), 20), ((1, 2, 2), 20), ((2, 2, 2), 0)])
def test_decoder_on_a_phone_costs_as_much(grid: tuple, width: int) -> None:
    """The graph that becomes a package groups frames in another way."""
    from mobivid_core.coreml.steps import DecoderStep
    from mobivid_core.models.vae import MobiVidVAE

    with torch.device("meta"):
        counted = module_counts(DecoderStep(MobiVidVAE(latent_channels=16, width=width)), torch.empty(1, 16, *grid))
    total = decoder_counts(grid, channels=16, width=width)["total"]
    assert (total.params, total.flops) == (counted.params, counted.flops)


def test_reconstruction_at_paper_scale() -> None:
    # data/paper C19 to C22 give the sizes; 49 frames of 512 x 384 at 8x32x32 give 1,344 tokens.
    grid = latent_grid(49, 384, 512)
    assert grid == (7, 12, 16)
    assert dit_params(SERVER)["total"] == 1_916_569_728
    assert dit_params(MOBILE)["total"] == 959_697_024
    server, mobile = (dit_flops(c, grid, 77)["total"] for c in (SERVER, MOBILE))
    assert server / 1e12 == pytest.approx(4.896, abs=5e-4)  # the reconstruction prints three decimals
    assert mobile / 1e12 == pytest.approx(2.413, abs=5e-4)
    ratio = clip_flops(server, steps=40, guidance=True) / clip_flops(mobile, steps=4, guidance=False)
    assert ratio == pytest.approx(40.6, abs=0.05)


@pytest.mark.parametrize(
    ("ratio", "tokens", "server", "mobile"),
    [((4, 32, 32), 2496, 9.72, 4.76), ((8, 16, 16), 5376, 24.4, 11.8), ((4, 8, 8), 39936, 497.9, 229.0)],
)
def test_flops_at_other_vae_ratios(ratio: tuple[int, int, int], tokens: int, server: float, mobile: float) -> None:
    grid = latent_grid(49, 384, 512, ratio)
    assert grid[0] * grid[1] * grid[2] == tokens
    assert dit_flops(SERVER, grid)["total"] / 1e12 == pytest.approx(server, rel=2e-3)  # printed with three digits
    assert dit_flops(MOBILE, grid)["total"] / 1e12 == pytest.approx(mobile, rel=3e-3)


def test_split_sums_to_total_and_scores_are_quadratic() -> None:
    split = block_flops_split(MOBILE, (7, 12, 16))
    assert sum(split.values()) == dit_flops(MOBILE, (7, 12, 16))["total"]
    assert block_flops_split(MOBILE, (14, 12, 16))["self-attention scores"] == 4 * split["self-attention scores"]


def test_bytes() -> None:
    sizes = dit_counts(MOBILE, (7, 12, 16), 77)
    assert sizes["total"].weight_bytes == 2 * dit_params(MOBILE)["total"]
    assert sizes["total"].traffic_bytes > sizes["total"].weight_bytes
    assert sizes["ffn"].peak_bytes == 2 * 1344 * (3 * 2048 + 6144)
    assert sizes["self_attention"].peak_bytes == 2 * 1344 * (2 * 2048 + 4 * 20 * 64)  # no scores


def test_more_width_never_costs_less() -> None:
    wider = replace(MINI_MOBILE, ffn_widths=tuple(w + 1 for w in MINI_MOBILE.ffn_widths))
    assert dit_params(wider)["total"] > dit_params(MINI_MOBILE)["total"]
    assert dit_flops(wider, (3, 4, 4))["total"] > dit_flops(MINI_MOBILE, (3, 4, 4))["total"]


def test_module_counts_of_a_convolution() -> None:
    conv = torch.nn.Conv2d(3, 5, 3, padding=1, device="meta")
    counted = module_counts(conv, torch.empty(1, 3, 8, 8, device="meta"))
    assert counted.params == 5 * 3 * 9 + 5
    assert counted.flops == 2 * 5 * 3 * 9 * 64  # multiply-adds of every output, padding included
    assert counted.peak_bytes == 2 * (3 + 5) * 64


def test_a_clip_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ParameterError, match="48 frames of 384x512 .* nearest valid size is 49 frames of 384x512"):
        latent_grid(48, 384, 512)
