"""The modules that become packages, with example inputs: what runs on the phone, and what its host prepares.

Paper: the on-device section. On the phone run the transformer's step, the light video decoder and the text encoder. The
host (a few lines of Swift) keeps the timestep's modulation vectors as small tables: float16 would spoil the timestep
embedding by up to 0.45 at t = 1000, and four fixed steps need only four rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock
from mobivid_core.models.rope import rotary_table

Grid = tuple[int, int, int]
#: Added to the attention scores of padding tokens; large enough to vanish in softmax, small enough for float16.
MASKED = -10_000.0
#: Smallest positive float16; coremltools stores smaller constants as this.
_TINY = 2.0**-24


@dataclass(frozen=True)
class Graph:
    """A module ready for conversion.

    Attributes:
        name: File name of the package.
        module: Called with `inputs` in order.
        inputs: Name -> example tensor, float32 or int32.
        outputs: Names of the outputs.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...] = field(default=("output",))


class DiTStep(nn.Module):
    """One transformer step with the timestep's vectors as inputs and the rotary table as a constant.

    It walks through the transformer's own layers instead of calling it: the transformer builds its rotary table from
    `arange` in each call, and coremltools drops that operator's `dtype`. A test holds the two equal.
    """

    def __init__(self, model: MobiVidTransformer3DModel, grid: Grid) -> None:
        """Keep a transformer's layers for one latent grid; its timestep MLP stays on the host."""
        super().__init__()
        self.grid = grid
        self.proj_in, self.caption_projection = model.proj_in, model.caption_projection
        self.blocks, self.proj_out, self.scale_shift_table = model.blocks, model.proj_out, model.scale_shift_table
        cos, sin = rotary_table(grid, model.config.head_dim, model.config.rope_theta)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, latents: Tensor, text: Tensor, text_mask: Tensor, modulation: Tensor, embedded: Tensor) -> Tensor:
        """latents (1, C, t, h, w), text (1, L, D), additive text_mask (1, L) -> velocity (1, C, t, h, w)."""
        x = self.proj_in(latents.flatten(2).transpose(1, 2))
        text = self.caption_projection(text)
        for block in self.blocks:
            x = block(x, text, modulation, (self.cos, self.sin), text_mask[:, None, None, :])
        shift, scale = (self.scale_shift_table + embedded[:, None])[:, :, None].unbind(1)
        velocity = self.proj_out(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        return velocity.transpose(1, 2).unflatten(2, self.grid)


class BlockStep(nn.Module):
    """One transformer block, its rotary table built in: the unit that is timed on a device and composed."""

    def __init__(self, block: nn.Module, grid: Grid, head_dim: int) -> None:
        """Keep the block and the rotary table of its token grid."""
        super().__init__()
        self.block = block
        cos, sin = rotary_table(grid, head_dim)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, tokens: Tensor, text: Tensor, modulation: Tensor) -> Tensor:
        """tokens (1, N, hidden), projected text (1, L, hidden), modulation (1, 6, hidden) -> (1, N, hidden)."""
        return self.block(tokens, text, modulation, (self.cos, self.sin))


class Decoder(nn.Module):
    """Latents to clip: normalisation, decoder, clamp."""

    def __init__(self, vae: nn.Module) -> None:
        """Wrap a VAE; its encoder is left out of the graph."""
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents (1, C, t, h, w) -> clip (1, 3, T, H, W) in [-1, 1]."""
        return self.vae.decode_latents(latents)


class TextStates(nn.Module):
    """Token ids to token states of a transformers text encoder.

    The attention mask is built here and handed over whole: coremltools cannot convert transformers' own mask code.
    """

    def __init__(self, encoder: nn.Module, length: int, *, causal: bool) -> None:
        """Wrap an encoder for sequences of `length`; CLIP is causal, BERT is not."""
        super().__init__()
        self.encoder = encoder
        future = torch.full((length, length), MASKED).triu(1) if causal else torch.zeros(length, length)
        self.register_buffer("future", future[None, None])

    def forward(self, input_ids: Tensor, text_mask: Tensor) -> Tensor:
        """input_ids (1, L) int32, additive text_mask (1, L) -> (1, L, D)."""
        mask = self.future + text_mask[:, None, None, :]
        return self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state


def dit_graph(
    model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int, *, name: str = "dit", seed: int = 0
) -> Graph:
    """A whole transformer step on random latents and text at sigma = 1/2, a quarter of the text padded."""
    cfg: DiTConfig = model.sizes
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, cfg.in_channels, *grid, generator=generator)
    text = torch.randn(1, text_tokens, cfg.text_dim, generator=generator)
    mask = torch.zeros(1, text_tokens)
    mask[:, text_tokens - text_tokens // 4 :] = MASKED
    with torch.no_grad():
        modulation, embedded = model.time_modulation(torch.tensor([500.0]))
    inputs = {"latents": latents, "text": text, "text_mask": mask, "modulation": modulation, "embedded": embedded}
    return Graph(name, DiTStep(model, grid), inputs, ("velocity",))


def block_graph(cfg: DiTConfig, grid: Grid, text_tokens: int, *, name: str = "block", seed: int = 0) -> Graph:
    """The first block of a transformer of these sizes, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        block = TransformerBlock(cfg.hidden, cfg.head_dim, cfg.self_heads[0], cfg.cross_heads[0], cfg.ffn_widths[0])
        # The fresh block's modulation gates are zero; random ones let every branch reach the output.
        nn.init.normal_(block.scale_shift_table, std=cfg.hidden**-0.5)
        tokens = torch.randn(1, grid[0] * grid[1] * grid[2], cfg.hidden)
        text, modulation = torch.randn(1, text_tokens, cfg.hidden), torch.randn(1, 6, cfg.hidden)
    inputs = {"tokens": tokens, "text": text, "modulation": modulation}
    return Graph(name, BlockStep(block, grid, cfg.head_dim), inputs, ("tokens_out",))


def decoder_graph(
    vae: nn.Module, latent_shape: tuple[int, int, int, int], *, name: str = "decoder", seed: int = 0
) -> Graph:
    """The VAE decoder on random normalised latents of shape (C, t, h, w)."""
    latents = torch.randn(1, *latent_shape, generator=torch.Generator().manual_seed(seed))
    return Graph(name, Decoder(vae), {"latents": latents}, ("clip",))


def clip_text_graph(
    *, hidden: int = 768, layers: int = 12, heads: int = 12, vocabulary: int = 49_408, length: int = 77,
    name: str = "text_encoder", seed: int = 0,
) -> Graph:  # fmt: skip
    """A CLIP-shaped text encoder with random weights, for counts, export and timing; defaults: CLIP ViT-L/14's sizes.

    GELU is exact, as in OpenCLIP: the original's x sigmoid(1.702 x) loses 1.702 to float16 rounding (error 4e-5).
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        hidden_act="gelu",
        projection_dim=hidden,
        eos_token_id=vocabulary - 1,
        bos_token_id=vocabulary - 2,
        pad_token_id=vocabulary - 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = CLIPTextModel(config).eval()
        ids = torch.randint(0, vocabulary, (1, length), dtype=torch.int32)
    return text_graph(encoder, ids, torch.ones(1, length, dtype=torch.bool), causal=True, name=name)


def text_graph(encoder: nn.Module, ids: Tensor, mask: Tensor, *, causal: bool, name: str = "text_encoder") -> Graph:
    """Any transformers text encoder at a fixed length; its scalar constants are rounded to float16 in place.

    Args:
        encoder: A transformers text model (pass a copy of one that is needed as it is).
        ids: (1, L) int32 token ids.
        mask: (1, L) bool, True for real tokens.
        causal: True for CLIP, False for BERT.
        name: File name of the package.
    """
    for module in encoder.modules():
        # Constants of the program are rounded as the weights are: 1 / sqrt(32) by 1e-4, and BERT's eps of 1e-12 to the
        # smallest number that float16 has.
        if isinstance(getattr(module, "scaling", None), float):
            module.scaling = _as_stored(module.scaling)
        if isinstance(module, nn.LayerNorm):
            module.eps = _as_stored(module.eps)
    inputs = {"input_ids": ids, "text_mask": torch.zeros(mask.shape).masked_fill(~mask, MASKED)}
    return Graph(name, TextStates(encoder, ids.shape[1], causal=causal), inputs, ("states",))


def _as_stored(value: float) -> float:
    """A positive scalar constant as a float16 package holds it."""
    return max(torch.tensor(value, device="cpu").half().item(), _TINY)


def round_weights(module: nn.Module) -> nn.Module:
    """Round parameters to float16 in place (kept as float32), as the package stores them: separates rounding of the
    weights from errors of the conversion. Returns the module."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return module
