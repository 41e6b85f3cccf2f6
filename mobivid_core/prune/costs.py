"""What a block, a head and an FFN neuron cost: parameters and FLOPs as sums over units.

Paper: tri-level pruning under a size budget. Every cost used for planning is linear in the units that are kept,
so one small table prices a plan without building a model. Checked in the tests against the module itself (to the
parameter) and against torch's FLOP counter with the math attention backend (to the FLOP).

Simplified: normalisation, activation and softmax are not counted as FLOPs (as in torch's counter).
"""

from __future__ import annotations

from dataclasses import dataclass

from mobivid_core.models.config import DiTConfig

#: Sinusoidal features that enter the timestep MLP (diffusers' `Timesteps(256)`).
TIME_FEATURES = 256


@dataclass(frozen=True)
class LinearCost:
    """A cost that is a sum over kept units.

    Attributes:
        unit: What is counted: "parameters", "FLOP" or any other additive cost.
        fixed: Cost outside the blocks.
        block: Cost of a block whose heads and neurons are all gone (biases, modulation table).
        self_head: Cost of one self-attention head.
        cross_head: Cost of one cross-attention head.
        neuron: Cost of one FFN neuron.
    """

    unit: str
    fixed: float
    block: float
    self_head: float
    cross_head: float
    neuron: float

    def block_total(self, self_heads: int, cross_heads: int, neurons: int) -> float:
        """Cost of one block of the given widths."""
        return self.block + self_heads * self.self_head + cross_heads * self.cross_head + neurons * self.neuron

    def total(self, sizes: DiTConfig) -> float:
        """Cost of a whole model."""
        widths = zip(sizes.self_heads, sizes.cross_heads, sizes.ffn_widths, strict=False)
        return self.fixed + sum(self.block_total(*w) for w in widths)


def parameter_cost(sizes: DiTConfig) -> LinearCost:
    """Parameters of the LTX-style block with per-head q/k norm and biases.

    Args:
        sizes: Any model of the family; its hidden, head and text widths set the prices.

    Returns:
        Integer-valued cost; `parameter_cost(s).total(s)` equals the module's own parameter count.
    """
    d, hidden = sizes.head_dim, sizes.hidden
    # q, k, v: hidden -> d with bias; out: d -> hidden (its bias belongs to the block); q and k norm weights: d each.
    head = 3 * (hidden * d + d) + d * hidden + 2 * d
    time_embed = (TIME_FEATURES + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * 6 * hidden
    caption = (sizes.text_dim + 1) * hidden + (hidden + 1) * hidden
    projections = (sizes.in_channels + 1) * hidden + (hidden + 1) * sizes.in_channels
    return LinearCost(
        unit="parameters",
        fixed=time_embed + caption + projections + 2 * hidden,
        block=6 * hidden + 3 * hidden,  # modulation table; output biases of self-attention, cross-attention, FFN
        self_head=head,
        cross_head=head,
        neuron=2 * hidden + 1,
    )


def flop_cost(sizes: DiTConfig, tokens: int, text_tokens: int, batch: int = 1) -> LinearCost:
    """FLOPs of one forward pass (a multiply-add is 2 FLOPs), attention included.

    Args:
        sizes: Any model of the family.
        tokens: Latent tokens t*h*w of one clip.
        text_tokens: Text tokens of one clip.
        batch: Clips in the batch.
    """
    d, hidden = sizes.head_dim, sizes.hidden
    attend = 2 * 2 * d  # q.k and p.v, per query-key pair
    time_embed = 2 * (TIME_FEATURES * hidden + hidden * hidden + 6 * hidden * hidden)
    caption = 2 * text_tokens * (sizes.text_dim * hidden + hidden * hidden)
    projections = 2 * tokens * 2 * sizes.in_channels * hidden
    return LinearCost(
        unit="FLOP",
        fixed=batch * (time_embed + caption + projections),
        block=0,
        self_head=batch * (4 * 2 * tokens * hidden * d + attend * tokens * tokens),
        cross_head=batch * (2 * 2 * (tokens + text_tokens) * hidden * d + attend * tokens * text_tokens),
        neuron=batch * 2 * 2 * tokens * hidden,
    )
