"""Two quick checks: exactness of the import, and exactness of pruning."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from mobivid_core.ltx.checkpoint import load_transformer
from mobivid_core.ltx.layout import ROPE_SCALE, config_of, ltx_sizes
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.surgery import gates_for, prune

#: Grids that the forward passes are compared on.
GRIDS = ((1, 1, 1), (2, 3, 2), (3, 4, 5))
_SIZES = ltx_sizes(3, 4, 8, in_channels=6, text_dim=12)


@contextlib.contextmanager
def _tiny(seed: int) -> Iterator[tuple[nn.Module, Path]]:
    """A tiny LTX-Video transformer that diffusers builds and saves, all weights random."""
    import diffusers

    model = diffusers.LTXVideoTransformer3DModel(**config_of(_SIZES)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for name, parameter in model.named_parameters():
            value = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + value if ".norm_" in name else value)
        model.save_pretrained(folder)
        yield model, Path(folder)


def _inputs(grid: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    latents = torch.randn(2, _SIZES.in_channels, *grid, generator=g)
    return latents, torch.tensor([950.0, 130.0]), torch.randn(2, 5, _SIZES.text_dim, generator=g), mask


def _relative(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def ltx_forward_error(seed: int = 0) -> float:
    """Largest relative error of the imported forward pass against diffusers' own, float32, over `GRIDS`, with masks."""
    errors = []
    with _tiny(seed) as (theirs, folder):
        ours = load_transformer(folder)
        for grid in GRIDS:
            latents, timestep, text, mask = _inputs(grid, seed + 1)
            shape = dict(zip(("num_frames", "height", "width"), grid, strict=True))
            packed = latents.flatten(2).transpose(1, 2)
            expected = theirs(packed, text, timestep, mask.long(), **shape, rope_interpolation_scale=ROPE_SCALE)[0]
            errors.append(_relative(ours(latents, timestep, text, mask).sample.flatten(2).transpose(1, 2), expected))
    return max(errors)


def ltx_masked_pruned_error(seed: int = 0) -> float:
    """Largest relative error of the pruned model against the masked one: blocks, heads, neurons, and all of them."""
    heads, neurons = tuple(range(4)), tuple(range(128))
    cuts = [
        ((0, 2), heads, heads, neurons),
        ((0, 1, 2), (0, 3), (1, 2), neurons),
        ((0, 1, 2), heads, heads, neurons[3:90:2]),
        ((1, 2), (1, 2, 3), (2,), neurons[::3]),
    ]
    errors = []
    with _tiny(seed) as (_, folder):
        model, inputs = load_transformer(folder), _inputs(GRIDS[1], seed + 1)
        for blocks, *kept in cuts:
            plan = PruningPlan(model.sizes, blocks, *((own,) * len(blocks) for own in kept))
            masked = model(*inputs, gates=gates_for(plan, model.sizes)).sample
            errors.append(_relative(prune(model, plan)(*inputs).sample, masked))
    return max(errors)
