"""Requirements of paper-scale training: the model on the meta device, and memory per GPU.

    mobivid bench memory

Paper: the 2 B server and the 0.9 B mobile DiT (reconstructed sizes). Nothing is trained at that scale here. Weights,
gradients, AdamW moments and averages are counted exactly and divided by the number of GPUs (FSDP2, fully sharded);
activations are the bytes that autograd keeps on the meta device. Simplified: no allocator overhead, no
communication buffers beyond two gathered blocks, fused attention (no scores are kept).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from mobivid_core.command import CommandParser, at_least_one, run_command
from mobivid_core.models.config import MOBILE, SERVER, DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel

#: Latent grid t, h, w of the paper's 49 x 384 x 512 clips behind its 8x32x32 VAE.
PAPER_GRID = (7, 12, 16)
TEXT_TOKENS = 77
GIB = 2**30
#: Bytes a parameter: float32 weight, float32 gradient, two AdamW moments, average.
STATE_BYTES = {"weights": 4, "gradients": 4, "AdamW moments": 8, "averaged weights": 4}


@dataclass(frozen=True)
class Activations:
    """Bytes that one clip's forward pass leaves for the backward pass."""

    kept: int  # all blocks keep theirs
    checkpointed: int  # blocks keep their input; one block at a time is computed again


def meta_model(sizes: DiTConfig) -> MobiVidTransformer3DModel:
    """The model in bfloat16 without memory: shapes only."""
    with torch.device("meta"):
        return MobiVidTransformer3DModel.from_sizes(sizes).bfloat16()


def activations(
    sizes: DiTConfig, grid: tuple[int, int, int] = PAPER_GRID, text_tokens: int = TEXT_TOKENS
) -> Activations:
    """Of one clip, measured on the meta device in bfloat16."""
    saved = _saved_bytes(meta_model(sizes), sizes, grid, text_tokens)
    blocks = [size for index, size in saved.items() if index >= 0]
    inputs = sizes.blocks * grid[0] * grid[1] * grid[2] * sizes.hidden * 2
    return Activations(sum(saved.values()), saved[-1] + inputs + max(blocks))


def memory_table(
    sizes: DiTConfig,
    gpus: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
    clips: int = 1,
    grid: tuple[int, int, int] = PAPER_GRID,
) -> pd.DataFrame:
    """GiB per GPU under FSDP2, for `clips` clips a GPU and micro-batch: one row a number of GPUs.

    `gathered` are two blocks in bfloat16 at a time; activations and total are given with and without checkpointing.
    """
    model, used = meta_model(sizes), activations(sizes, grid)
    parameters = sum(p.numel() for p in model.parameters())
    block = max(sum(p.numel() for p in block.parameters()) for block in model.blocks)
    table = pd.DataFrame({"gpus": gpus})
    for name, size in STATE_BYTES.items():
        table[name] = size * parameters / table["gpus"] / GIB
    # a single GPU holds a bfloat16 copy of the weights as autocast makes it; several gather two blocks at a time
    table["gathered"] = [(parameters if count == 1 else 2 * block) * 2 / GIB for count in gpus]
    state = table.drop(columns="gpus").sum(axis=1)
    parts = {"": used.kept, ", checkpointed": used.checkpointed}
    table = table.assign(**{f"activations{how}": clips * kept / GIB for how, kept in parts.items()})
    return table.assign(**{f"total{how}": state + table[f"activations{how}"] for how in parts})


def _saved_bytes(
    model: MobiVidTransformer3DModel, sizes: DiTConfig, grid: tuple[int, int, int], text_tokens: int
) -> dict[int, int]:
    """Bytes that autograd keeps of one clip's forward pass, by block; -1 is what lies outside the blocks."""
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    tokens = grid[0] * grid[1] * grid[2]
    # the meta device writes attention out; GPUs' fused kernels keep no scores
    scores = {(heads, tokens, tokens) for heads in sizes.self_heads}
    scores |= {(heads, tokens, text_tokens) for heads in sizes.cross_heads}
    kept: dict[int, tuple[int, torch.UntypedStorage]] = {}
    place = [-1]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters and tuple(tensor.shape[-3:]) not in scores:
            kept.setdefault(storage._cdata, (place[0], storage))  # held, so that its address is not used again
        return tensor

    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda *_, i=index: place.__setitem__(0, i))
        block.register_forward_hook(lambda *_: place.__setitem__(0, -1))
    like = {"device": "meta", "dtype": torch.bfloat16}
    latents = torch.empty(1, sizes.in_channels, *grid, **like)
    text, mask = torch.empty(1, text_tokens, sizes.text_dim, **like), torch.ones(1, text_tokens, device="meta").bool()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(latents, torch.empty(1, **like), text, mask)
    found = dict.fromkeys(range(-1, len(model.blocks)), 0)
    for index, storage in kept.values():
        found[index] += storage.nbytes()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: print the memory of paper-scale training; returns the exit status."""
    parser = CommandParser("bench memory", main.__doc__)
    parser.add_argument("--clips", type=at_least_one, default=1, help="clips a GPU and micro-batch")

    def show(options: argparse.Namespace) -> None:
        for name, sizes in {"SERVER": SERVER, "MOBILE": MOBILE}.items():
            parameters = sum(p.numel() for p in meta_model(sizes).parameters())
            t, h, w = PAPER_GRID
            print(f"{name}: {parameters:,} parameters; {t} x {h} x {w} = {t * h * w} tokens; GiB per GPU")
            print(memory_table(sizes, clips=options.clips).round(2).to_string(index=False), end="\n\n")

    return run_command(show, parser, arguments)
