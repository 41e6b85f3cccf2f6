"""Tiny LTX-Video checkpoints that diffusers itself initialises and saves, with random weights everywhere."""

from __future__ import annotations

import diffusers
import pytest
import torch

HEADS, HEAD_DIM, CHANNELS, TEXT = 4, 8, 6, 12


def randomise(model, seed=0, std=0.3):
    """diffusers starts some tensors at zero or one, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = torch.randn(parameter.shape, generator=generator) * std
            parameter.copy_(1 + value if ".norm_" in name else value)
    return model.eval()


def tiny_ltx(seed=0, blocks=3, heads=HEADS, head_dim=HEAD_DIM, **other):
    settings = {"in_channels": CHANNELS, "out_channels": CHANNELS, "caption_channels": TEXT} | other
    model = diffusers.LTXVideoTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        cross_attention_dim=heads * head_dim,
        num_layers=blocks,
        **settings,
    )
    return randomise(model, seed)


def example(grid=(2, 3, 2), batch=2, text=5, seed=1, dtype=torch.float32):
    """Latents, timestep, text and a mask that pads the second caption."""
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, CHANNELS, *grid, generator=g).to(dtype)
    mask = torch.arange(text)[None] < torch.tensor([[text], [2]])[:batch]
    states = torch.randn(batch, text, TEXT, generator=g).to(dtype)
    return latents, torch.tensor([950.0, 130.0])[:batch], states, mask


def relative(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="session")
def ltx_folder(tmp_path_factory):
    """A transformer folder as diffusers saves it."""
    folder = tmp_path_factory.mktemp("ltx") / "transformer"
    tiny_ltx().save_pretrained(folder)
    return folder
