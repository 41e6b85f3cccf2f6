"""Attention with q/k RMS norm per head, and the GELU feed-forward: the two layers whose units pruning removes.

Paper: the server DiT's block. Both layers may have zero units left; what remains of them is their output bias.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.models.rope import RotaryTable, rotate


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that may have zero inputs or outputs (a layer whose heads or neurons are all pruned)."""
    with warnings.catch_warnings():
        # Torch warns that initialising zero elements does nothing, which is what we want there.
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)


class HeadRMSNorm(nn.Module):
    """RMS norm of each head's vector, with its own weights.

    diffusers' LTX normalises over all heads at once, which couples them: there a masked head still changes the others,
    and a masked model differs from the pruned one.
    """

    def __init__(self, heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, N, head_dim) -> same shape."""
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * self.weight[:, None, :]


class Attention(nn.Module):
    """Multi-head attention from tokens to themselves or to text.

    Attributes:
        to_q, to_k, to_v: (hidden -> heads * head_dim); head i owns rows i * head_dim onwards.
        to_out: (heads * head_dim -> hidden); head i owns columns i * head_dim onwards.
    """

    def __init__(self, hidden: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        inner = heads * head_dim
        self.to_q, self.to_k, self.to_v = linear(hidden, inner), linear(hidden, inner), linear(hidden, inner)
        self.norm_q, self.norm_k = HeadRMSNorm(heads, head_dim), HeadRMSNorm(heads, head_dim)
        self.to_out = linear(inner, hidden)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        table: RotaryTable | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, N, hidden) queries.
            context: (B, L, hidden) keys and values; None for self-attention.
            mask: Broadcasts to (B, H, N, L): bool (True = attend) or float (added to the scores).
            table: Rotary table of the N tokens, for self-attention.
            gate: (H,) or (B, H) multiplier of the head outputs.

        Returns:
            (B, N, hidden).
        """
        if not self.heads:
            return self.to_out.bias.expand_as(x)
        context = x if context is None else context
        query = self.norm_q(self._split(self.to_q(x)))
        key = self.norm_k(self._split(self.to_k(context)))
        value = self._split(self.to_v(context))
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        heads = attend(query, key, value, mask)
        if gate is not None:
            heads = heads * gate[..., None, None]
        return self.to_out(heads.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, H * head_dim) -> (B, H, N, head_dim)."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, (B, H, N, d) and (B, H, L, d) to (B, H, N, d); the mask is as in `Attention.forward`.

    Under bfloat16 autocast on a processor it is written out: torch's fused kernel takes more than twice as long for
    the few tokens of a miniature.
    """
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


class FeedForward(nn.Module):
    """Linear, GELU, linear: y = W_down GELU(W_up x + b_up) + b_down.

    GELU is the exact one: `torch.export` conversion to Core ML drops the tanh approximation's keyword silently.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.up, self.down = linear(hidden, width), linear(width, hidden)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """x: (B, N, hidden) -> same; gate: (width,) or (B, width) multiplier of the neurons."""
        if not self.width:
            return self.down.bias.expand_as(x)
        inner = F.gelu(self.up(x))
        if gate is not None:
            inner = inner * gate[..., None, :]
        return self.down(inner)
