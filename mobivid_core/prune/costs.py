"""Parameters and FLOPs of each block, head and FFN neuron.

Paper: tri-level pruning under a size budget. Every cost used for planning is linear in the units that are kept,
so one small table prices a plan without building a model. What is counted, and how, is `models.counts`; the tests
compare it with the module itself (to the parameter) and with torch's FLOP counter (to the FLOP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import dit_flops, dit_params


@dataclass(frozen=True)
class LinearCost:
    """A cost that is a sum over kept units."""

    unit: str  # what is counted: "parameters", "FLOP" or any other additive cost
    fixed: float  # cost outside the blocks
    block: float  # cost of a block whose heads and neurons are all gone (biases, modulation table)
    self_head: float  # cost of one self-attention head
    cross_head: float  # cost of one cross-attention head
    neuron: float  # cost of one FFN neuron

    def price(self, kind: str) -> float:
        """Cost of one unit of "self_heads", "cross_heads" or "ffn"."""
        return {"self_heads": self.self_head, "cross_heads": self.cross_head, "ffn": self.neuron}[kind]

    def block_total(self, self_heads: int, cross_heads: int, neurons: int) -> float:
        """Cost of one block of the given widths."""
        return self.block + self_heads * self.self_head + cross_heads * self.cross_head + neurons * self.neuron

    def total(self, sizes: DiTConfig) -> float:
        """Cost of a whole model."""
        return self.fixed + sum(self.block_total(*widths) for widths in sizes.widths)


def parameter_cost(sizes: DiTConfig) -> LinearCost:
    """Parameters; `sizes` may be any model of the family, whose hidden, head and text widths set the prices.

    Whole numbers; `parameter_cost(s).total(s)` equals the module's own count.
    """
    return _priced(sizes, "parameters", lambda config: dit_params(config)["total"])


def flop_cost(sizes: DiTConfig, tokens: int, text_tokens: int) -> LinearCost:
    """FLOPs of a forward pass (a multiply-add is 2), attention included, on a clip of `tokens` latent tokens t*h*w.

    `sizes` may be any model of the family.
    """
    return _priced(sizes, "FLOP", lambda config: dit_flops(config, (tokens, 1, 1), text_tokens)["total"])


def _priced(sizes: DiTConfig, unit: str, count: Callable[[DiTConfig], int]) -> LinearCost:
    """The price list of a count that is linear in heads and neurons, by leaving out one unit after the other."""

    def model(*widths: tuple[int, int, int]) -> int:
        own, cross, ffn = zip(*widths, strict=True) if widths else ((), (), ())
        return count(replace(sizes.widths_alone(), self_heads=own, cross_heads=cross, ffn_widths=ffn))

    fixed, bare = model(), model((0, 0, 0))
    head, cross, neuron = (model(one) - bare for one in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    return LinearCost(unit, fixed=fixed, block=bare - fixed, self_head=head, cross_head=cross, neuron=neuron)
