"""Names and shapes of diffusers' `LTXVideoTransformer3DModel` beside ours, both ways.

Paper: its server DiT has LTX-Video's shape. The two layouts hold the same tensors. One thing moves: LTX-Video turns
channel pairs (2i, 2i + 1) of a head, `models.rope.rotate` pairs (i, i + d/2), so the rows of q and k in self-attention
are put in that order, which leaves dot products unchanged.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from mobivid_core.errors import CheckpointError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel

CLASS = "LTXVideoTransformer3DModel"
#: Seconds a latent frame and pixels a latent cell at 25 frames/s, as `LTXPipeline` sets them by default.
ROPE_SCALE = (8 / 25, 32.0, 32.0)
#: What the layers of this project can express; anything else in a config is refused.
SUPPORTED = {
    "patch_size": 1,
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "attention_bias": True,
    "attention_out_bias": True,
}
_NAMES = (
    ("blocks.", "transformer_blocks."),
    (".to_out.", ".to_out.0."),
    (".ffn.up.", ".ff.net.0.proj."),
    (".ffn.down.", ".ff.net.2."),
    ("time_embed.linear_1.", "time_embed.emb.timestep_embedder.linear_1."),
    ("time_embed.linear_2.", "time_embed.emb.timestep_embedder.linear_2."),
    ("caption_projection.0.", "caption_projection.linear_1."),
    ("caption_projection.2.", "caption_projection.linear_2."),
)
#: Tensors whose rows are channels that turn in pairs.
_TURNED = re.compile(r"\.attn1\.(to|norm)_[qk]\.")


def sizes_of(config: dict[str, Any]) -> DiTConfig:
    """Our sizes for a diffusers config; a CheckpointError where it asks for what our layers cannot express."""
    given = config_of(ltx_sizes(28, 32, 64)) | config  # what a config leaves out is LTX-Video 2B's
    given["out_channels"] = given["out_channels"] or given["in_channels"]
    heads, head_dim = given["num_attention_heads"], given["attention_head_dim"]
    wanted = SUPPORTED | {"out_channels": given["in_channels"], "cross_attention_dim": heads * head_dim}
    wrong = [f"{k} = {given[k]!r} (supported: {wanted[k]!r})" for k in wanted if given[k] != wanted[k]]
    if wrong:
        raise CheckpointError(f"this {CLASS} is of a kind that cannot be expressed here: {', '.join(wrong)}")
    return ltx_sizes(given["num_layers"], heads, head_dim, given["in_channels"], given["caption_channels"])


def ltx_sizes(blocks: int, heads: int, head_dim: int, in_channels: int = 128, text_dim: int = 4096) -> DiTConfig:
    """Sizes of an unpruned transformer with LTX-Video's layer options."""
    hidden = heads * head_dim
    return DiTConfig.uniform(
        blocks=blocks, heads=heads, ffn=4 * hidden, hidden=hidden, head_dim=head_dim, in_channels=in_channels,
        text_dim=text_dim, qk_norm="across_heads", rope="across_heads", gelu="tanh", rope_span=heads,
        rope_heads=(tuple(range(heads)),) * blocks,
    )  # fmt: skip


def config_of(sizes: DiTConfig) -> dict[str, Any]:
    """diffusers' config for the sizes of an unpruned model."""
    return SUPPORTED | {
        "in_channels": sizes.in_channels,
        "out_channels": sizes.in_channels,
        "num_attention_heads": sizes.hidden // sizes.head_dim,
        "attention_head_dim": sizes.head_dim,
        "cross_attention_dim": sizes.hidden,
        "num_layers": sizes.blocks,
        "caption_channels": sizes.text_dim,
    }


def their_name(name: str) -> str:
    """diffusers' name of one of our tensors."""
    for mine, other in _NAMES:
        name = name.replace(mine, other)
    return name


def ours(name: str, theirs: Tensor, head_dim: int) -> Tensor:
    """Our tensor `name` from diffusers' one; a view where nothing moves."""
    if _TURNED.search(name):
        theirs = theirs.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
    return theirs.unflatten(0, (-1, head_dim)) if ".norm_" in name else theirs


def to_theirs(state: dict[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """All of our tensors in diffusers' layout."""
    made = {}
    for name, value in state.items():
        flat = value.flatten(0, 1) if ".norm_" in name else value
        if _TURNED.search(name):
            flat = flat.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
        made[their_name(name)] = flat.contiguous()
    return made


def empty_model(sizes: DiTConfig, **positions: Any) -> MobiVidTransformer3DModel:
    """Our transformer of these sizes on the meta device."""
    with torch.device("meta"):
        return MobiVidTransformer3DModel(**sizes.as_kwargs(), **positions)
