"""The modules that become packages, with example inputs.

Paper: the on-device section: the transformer's step, a light video decoder, and CLIP instead of T5 as text encoder
(data/paper claim C27). The miniature's encoder is MiniLM; one of CLIP's sizes with random weights is for paper scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobivid_core.coreml.steps import DecoderStep, DiTStep, SingleBlock, host_modulation
from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid
from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.fit import CHUNK_BYTES

#: Added to the attention scores of padding tokens; large enough to vanish in softmax, small enough for float16.
MASKED = -10_000.0
#: Smallest positive float16; coremltools stores smaller constants as this.
_TINY = 2.0**-24


@dataclass(frozen=True)
class Graph:
    """A module ready for conversion, called with `inputs` (float32 or int32 tensors) in order."""

    name: str  # file name of the package
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...] = ("output",)


def additive(mask: Tensor) -> Tensor:
    """What a mask (1, L), True for real tokens, adds to attention scores."""
    return torch.zeros(mask.shape).masked_fill(~mask, MASKED)


def dit_graph(model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int, *, name: str = "dit") -> Graph:
    """A whole transformer step on random latents and text at sigma = 1/2, a quarter of the text padded."""
    return Graph(name, DiTStep(model, grid), _dit_inputs(model, grid, text_tokens), ("velocity",))


def dit_chunks(
    model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int, *, limit_bytes: float = CHUNK_BYTES,
    name: str = "dit",
) -> list[Graph]:  # fmt: skip
    """The step cut between blocks into the fewest even runs whose float16 weights stay below a limit.

    Each part's example inputs are the outputs of the part before it, so that verifying the parts one after the other
    verifies the chain. A ParameterError if a single block is larger than the limit.
    """
    blocks = len(model.blocks)
    for count in range(1, blocks + 1):
        edges = [blocks * i // count for i in range(count + 1)]
        parts = [DiTStep(model, grid, range(a, b)) for a, b in zip(edges, edges[1:], strict=False)]
        if all(2 * sum(p.numel() for p in part.parameters()) < limit_bytes for part in parts):
            break
    else:
        raise ParameterError(f"a block of this transformer alone is larger than {limit_bytes / 1e9:.2f} GB in float16")
    if count == 1:
        return [dit_graph(model, grid, text_tokens, name=name)]
    inputs, graphs = _dit_inputs(model, grid, text_tokens), []
    x, text, mask, rows = inputs.values()
    for i, part in enumerate(parts):
        mine = rows[:, 6 * part.run.start : None if part.leaves else 6 * part.run.stop]
        first = "latents" if part.enters else "tokens"
        given = {first: x, "text" if part.enters else "projected_text": text, "text_mask": mask, "modulation": mine}
        outputs = ("velocity",) if part.leaves else ("tokens_out", "text_out")
        graphs.append(Graph(f"{name}_part{i + 1}of{count}", part, given, outputs))
        if not part.leaves:
            with torch.no_grad():
                x, text = part(*given.values())
    return graphs


def _dit_inputs(model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int) -> dict[str, Tensor]:
    """Latents, text, mask and modulation, in this order."""
    cfg: DiTConfig = model.sizes
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, cfg.in_channels, *grid, generator=generator)
    text = torch.randn(1, text_tokens, cfg.text_dim, generator=generator)
    mask = torch.zeros(1, text_tokens)
    mask[:, text_tokens - text_tokens // 4 :] = MASKED
    modulation = host_modulation(model, torch.tensor([500.0]))
    return {"latents": latents, "text": text, "text_mask": mask, "modulation": modulation}


def block_graph(cfg: DiTConfig, grid: Grid, text_tokens: int, *, name: str = "block", seed: int = 0) -> Graph:
    """The first block of a transformer of these sizes, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        block = TransformerBlock(cfg.hidden, cfg.head_dim, cfg.self_heads[0], cfg.cross_heads[0], cfg.ffn_widths[0])
        tokens = torch.randn(1, grid[0] * grid[1] * grid[2], cfg.hidden)
        text, modulation = torch.randn(1, text_tokens, cfg.hidden), torch.randn(1, 6, cfg.hidden)
    inputs = {"tokens": tokens, "text": text, "modulation": modulation}
    return Graph(name, SingleBlock(block, grid, cfg.head_dim), inputs, ("tokens_out",))


def decoder_graph(vae: MobiVidVAE, latent_shape: tuple[int, int, int, int], *, name: str = "decoder") -> Graph:
    """The VAE decoder on random normalised latents of shape (C, t, h, w)."""
    latents = torch.randn(1, *latent_shape, generator=torch.Generator().manual_seed(0))
    return Graph(name, DecoderStep(vae), {"latents": latents}, ("clip",))


class TextStates(nn.Module):
    """Token ids to token states of a transformers text encoder; CLIP is causal, BERT is not.

    The attention mask is built here and handed over whole: coremltools cannot convert transformers' own mask code.
    """

    def __init__(self, encoder: nn.Module, length: int, *, causal: bool) -> None:
        super().__init__()
        self.encoder = encoder
        future = torch.full((length, length), MASKED).triu(1) if causal else torch.zeros(length, length)
        self.register_buffer("future", future[None, None])

    def forward(self, input_ids: Tensor, text_mask: Tensor) -> Tensor:
        """input_ids (1, L) int32, additive text_mask (1, L) -> (1, L, D)."""
        mask = self.future + text_mask[:, None, None, :]
        return self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state


def text_graph(encoder: nn.Module, ids: Tensor, mask: Tensor, *, causal: bool, name: str = "text_encoder") -> Graph:
    """Any transformers text encoder on token ids (1, L) int32 and their mask (1, L), at this fixed length.

    The encoder's scalar constants are rounded to float16 in place: pass a copy of one that is needed as it is.
    """
    for module in encoder.modules():
        # Constants of the program are rounded as the weights are: 1 / sqrt(32) by 1e-4, and BERT's eps of 1e-12 to the
        # smallest number that float16 has.
        if isinstance(getattr(module, "scaling", None), float):
            module.scaling = _as_stored(module.scaling)
        if isinstance(module, nn.LayerNorm):
            module.eps = _as_stored(module.eps)
    inputs = {"input_ids": ids, "text_mask": additive(mask)}
    return Graph(name, TextStates(encoder, ids.shape[1], causal=causal), inputs, ("states",))


def _as_stored(value: float) -> float:
    """A positive scalar constant as a float16 package holds it."""
    return max(torch.tensor(value, device="cpu").half().item(), _TINY)


def clip_text_graph(
    *, hidden: int = 768, layers: int = 12, heads: int = 12, vocabulary: int = 49_408, length: int = 77,
    name: str = "text_encoder",
) -> Graph:  # fmt: skip
    """A CLIP-shaped text encoder with random weights, for counts, export and timing; defaults: CLIP ViT-L/14's sizes.

    GELU is exact, as in OpenCLIP: the original's x sigmoid(1.702 x) loses 1.702 to float16 rounding (error 4e-5).
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=length, hidden_act="gelu", projection_dim=hidden,
        eos_token_id=vocabulary - 1, bos_token_id=vocabulary - 2, pad_token_id=vocabulary - 1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPTextModel(config).eval()
        ids = torch.randint(0, vocabulary, (1, length), dtype=torch.int32)
    return text_graph(encoder, ids, torch.ones(1, length, dtype=torch.bool), causal=True, name=name)
