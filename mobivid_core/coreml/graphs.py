"""The modules that become packages, with example inputs.

Paper: the on-device section. On the phone run the transformer's step, the light video decoder and the text encoder
(`text_graphs`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mobivid_core.coreml.decoder_step import DecoderStep
from mobivid_core.coreml.steps import DiTStep, Grid, SingleBlock, host_modulation
from mobivid_core.errors import ParameterError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel, TransformerBlock
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.fit import CHUNK_BYTES

#: Added to the attention scores of padding tokens; large enough to vanish in softmax, small enough for float16.
MASKED = -10_000.0


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


def dit_graph(
    model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int, *, name: str = "dit", seed: int = 0
) -> Graph:
    """A whole transformer step on random latents and text at sigma = 1/2, a quarter of the text padded."""
    return Graph(name, DiTStep(model, grid), _dit_inputs(model, grid, text_tokens, seed), ("velocity",))


def dit_chunks(
    model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int, *, limit_bytes: float = CHUNK_BYTES,
    name: str = "dit", seed: int = 0,
) -> list[Graph]:  # fmt: skip
    """The step cut between blocks into the fewest even runs whose float16 weights stay below a limit.

    Each part's example inputs are the outputs of the part before it, so that verifying the parts one after the other
    verifies the chain.

    Raises:
        ParameterError: A single block is larger than the limit.
    """
    blocks = len(model.blocks)
    for count in range(1, blocks + 1):
        parts = [DiTStep(model, grid, run) for run in _runs(blocks, count)]
        if all(2 * sum(p.numel() for p in part.parameters()) < limit_bytes for part in parts):
            break
    else:
        raise ParameterError(f"a block of this transformer alone is larger than {limit_bytes / 1e9:.2f} GB in float16")
    if count == 1:
        return [dit_graph(model, grid, text_tokens, name=name, seed=seed)]
    inputs, graphs = _dit_inputs(model, grid, text_tokens, seed), []
    rows, mask = inputs["modulation"], inputs["text_mask"]
    x, text = inputs["latents"], inputs["text"]
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


def block_graph(cfg: DiTConfig, grid: Grid, text_tokens: int, *, name: str = "block", seed: int = 0) -> Graph:
    """The first block of a transformer of these sizes, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        block = TransformerBlock(cfg.hidden, cfg.head_dim, cfg.self_heads[0], cfg.cross_heads[0], cfg.ffn_widths[0])
        tokens = torch.randn(1, grid[0] * grid[1] * grid[2], cfg.hidden)
        text, modulation = torch.randn(1, text_tokens, cfg.hidden), torch.randn(1, 6, cfg.hidden)
    inputs = {"tokens": tokens, "text": text, "modulation": modulation}
    return Graph(name, SingleBlock(block, grid, cfg.head_dim), inputs, ("tokens_out",))


def decoder_graph(
    vae: MobiVidVAE, latent_shape: tuple[int, int, int, int], *, name: str = "decoder", seed: int = 0
) -> Graph:
    """The VAE decoder on random normalised latents of shape (C, t, h, w)."""
    latents = torch.randn(1, *latent_shape, generator=torch.Generator().manual_seed(seed))
    return Graph(name, DecoderStep(vae), {"latents": latents}, ("clip",))


def round_weights(module: nn.Module) -> nn.Module:
    """Round parameters to float16 in place (kept as float32), as the package stores them: separates rounding of the
    weights from errors of the conversion. Returns the module."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    return module


def _dit_inputs(model: MobiVidTransformer3DModel, grid: Grid, text_tokens: int, seed: int) -> dict[str, Tensor]:
    cfg: DiTConfig = model.sizes
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, cfg.in_channels, *grid, generator=generator)
    text = torch.randn(1, text_tokens, cfg.text_dim, generator=generator)
    mask = torch.zeros(1, text_tokens)
    mask[:, text_tokens - text_tokens // 4 :] = MASKED
    modulation = host_modulation(model, torch.tensor([500.0]))
    return {"latents": latents, "text": text, "text_mask": mask, "modulation": modulation}


def _runs(blocks: int, count: int) -> list[range]:
    """`count` runs of blocks whose lengths differ by at most one."""
    edges = [blocks * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in zip(edges, edges[1:], strict=False)]
