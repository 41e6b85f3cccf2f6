"""A checkpoint of LTX-Video's shape with random weights and random data, for rehearsals.

Written block by block, so that making it takes one block's memory.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mobivid_core.artifacts import WEIGHTS
from mobivid_core.errors import RunError
from mobivid_core.files import write_json
from mobivid_core.ltx import layout
from mobivid_core.ltx.shards import RATIO, ShardFacts, shard_name, write_facts, write_shard
from mobivid_core.models.config import DiTConfig
from mobivid_core.prune.costs import parameter_cost


def write_random_ltx(folder: Path, sizes: DiTConfig, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a sharded diffusers checkpoint: a shard a block and one for the rest.

    Weights are normal with the variance that keeps activations of order one; norms are near 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = parameter_cost(sizes).total(sizes) * dtype.itemsize, shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise RunError(f"the random checkpoint takes {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free")
    shapes = {k: tuple(v.shape) for k, v in layout.empty_model(sizes).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    groups: dict[str, list[str]] = {}
    for name in shapes:
        part = name.split(".")[1] if name.startswith("blocks.") else "rest"
        groups.setdefault(part, []).append(name)
    placed = {}
    for i, names in enumerate(groups.values()):
        file = WEIGHTS.replace(".safetensors", f"-{i + 1:05d}-of-{len(groups):05d}.safetensors")
        state = {name: _random(name, shapes[name], generator).to(dtype) for name in names}
        theirs = layout.to_theirs(state, sizes.head_dim)
        save_file(theirs, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(theirs, file)
    write_json(folder / f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": placed})
    write_json(folder / "config.json", layout.config_of(sizes) | {"_class_name": layout.CLASS})


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    value = torch.randn(shape, generator=generator)
    if ".norm_" in name:
        return 1 + 0.1 * value
    if name.endswith("bias"):
        return 0.02 * value
    return value * shape[-1] ** -0.5 if len(shape) == 2 else value


def write_random_data(
    folder: Path, sizes: DiTConfig, grid: tuple[int, int, int], samples: int, text_tokens: int
) -> None:
    """Write shards of normal latents and text states."""
    generator = torch.Generator().manual_seed(0)
    shape = (sizes.in_channels, *grid)
    null = torch.randn(1, text_tokens, sizes.text_dim, generator=generator), torch.ones(1, text_tokens)
    write_facts(folder, ShardFacts(shape, text_tokens, sizes.text_dim, 25.0, RATIO, "random numbers"), *null)
    mask = torch.arange(text_tokens) < max(1, text_tokens // 2)
    made = []
    for i in range(samples):
        latents = torch.randn(shape, generator=generator)
        text = torch.randn(text_tokens, sizes.text_dim, generator=generator)
        made.append((latents, text, mask, {"video": f"random {i}"}))
    write_shard(folder / shard_name(0), made)
