"""Gates: a multiplier on every unit that tri-level pruning can remove (a head, an FFN neuron, a block).

Paper: sensitivity-aware tri-level pruning. Gate 1 leaves the model as it is; gate 0 equals physical removal.
One gate a sample and unit, shape (B, units), gives per-sample gate gradients from a single backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mobivid_core.models.config import DiTConfig


@dataclass
class Gates:
    """Multipliers of a DiT's prunable units."""

    # One tensor a block, (H,) or (B, H): each self-attention head's output, before the out projection
    self_heads: list[Tensor]
    cross_heads: list[Tensor]  # the same for cross-attention
    ffn: list[Tensor]  # one tensor a block, (F,) or (B, F): each FFN neuron, after GELU
    blocks: Tensor  # (blocks,) or (B, blocks): x + g * (block(x) - x)

    @classmethod
    def ones(
        cls,
        sizes: DiTConfig,
        batch: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Gates:
        """All units open; with `batch`, one gate for each sample and unit."""
        lead = () if batch is None else (batch,)

        def open_units(counts: tuple[int, ...]) -> list[Tensor]:
            return [torch.ones(*lead, n, device=device, dtype=dtype) for n in counts]

        blocks = torch.ones(*lead, sizes.blocks, device=device, dtype=dtype)
        return cls(open_units(sizes.self_heads), open_units(sizes.cross_heads), open_units(sizes.ffn_widths), blocks)

    def tensors(self) -> list[Tensor]:
        """Every gate tensor, in a fixed order: self heads, cross heads, FFN, blocks."""
        return [*self.self_heads, *self.cross_heads, *self.ffn, self.blocks]

    def map(self, function: Callable[[Tensor], Tensor]) -> Gates:
        """`function` of every gate tensor."""
        heads, cross, ffn = ([function(g) for g in part] for part in (self.self_heads, self.cross_heads, self.ffn))
        return Gates(heads, cross, ffn, function(self.blocks))

    def requires_grad_(self, wanted: bool = True) -> Gates:
        """Make every gate a leaf that collects gradients (in place); returns self."""
        for tensor in self.tensors():
            tensor.requires_grad_(wanted)
        return self

    def gradients(self) -> Gates:
        """Gradients left by the last backward pass, in the shape of the gates; zero where none arrived."""
        return self.map(lambda g: torch.zeros_like(g) if g.grad is None else g.grad)
