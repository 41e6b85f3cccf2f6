"""Counts of any module with torch's FLOP counter, to check every closed form.

Paper: none; the conventions are those of `counts`. Put modules on the meta device: nothing is allocated or computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mobivid_core.models.counts import LayerCount

#: Layer kinds of the diffusion transformer (`counts.dit_counts`) -> its modules, or its parameters outside modules.
DIT_KINDS = {
    "patch": r"proj_in|proj_out", "caption": r"caption_projection", "timestep": r"time_embed",
    "self_attention": r"blocks\.\d+\.attn1", "cross_attention": r"blocks\.\d+\.attn2", "ffn": r"blocks\.\d+\.ffn",
    "modulation": r"(blocks\.\d+\.)?scale_shift_table",
}  # fmt: skip


def module_counts(
    module: nn.Module, *inputs: object, leaves: type[nn.Module] = nn.Module, **keywords: int
) -> LayerCount:
    """Counts of a whole module, called as `module(*inputs, **keywords)`, at two bytes a value.

    Peak and traffic are taken over leaf modules of the type `leaves` (input + output), so they leave out tensors kept
    for skip paths.
    """
    touched: list[int] = []

    def note(_: nn.Module, args: tuple, output: object) -> None:
        tensors = [value for value in tree_leaves((args, output)) if isinstance(value, torch.Tensor)]
        touched.append(sum(tensor.numel() for tensor in tensors))

    ends = [leaf for leaf in module.modules() if isinstance(leaf, leaves) and not list(leaf.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in ends]
    try:
        with _counting(module) as counter:
            module(*inputs, **keywords)
    finally:
        for hook in hooks:
            hook.remove()
    params = sum(p.numel() for p in module.parameters())
    peak, traffic = 2 * max(touched, default=0), 2 * sum(touched)
    return LayerCount(params, counter.get_total_flops(), 2 * params, peak, 2 * params + traffic)


def counts_by_kind(module: nn.Module, *inputs: object, kinds: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """(parameters, FLOPs) of each layer kind of a module, called as `module(*inputs)`, and "total" of all of it.

    `kinds` maps each kind to a regular expression that matches the full names of its modules.
    """
    with _counting(module) as counter:
        module(*inputs)
    root = type(module).__name__
    flops = {name.removeprefix(f"{root}."): sum(by_op.values()) for name, by_op in counter.flop_counts.items()}
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    table = {
        kind: (
            sum(n for name, n in sizes.items() if re.match(rf"({pattern})(\.|$)", name)),
            sum(n for name, n in flops.items() if re.fullmatch(pattern, name)),
        )
        for kind, pattern in kinds.items()
    }
    return table | {"total": (sum(sizes.values()), counter.get_total_flops())}


@contextmanager
def _counting(module: nn.Module) -> Iterator[FlopCounterMode]:
    """Torch's counter, attention's matrix products included.

    The default CPU backend hides attention from the counter (161.5 against 177.1 GFLOP for one server block).
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    module.requires_grad_(False)  # the counter's module tracker fails on an output that is a view of a parameter
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
