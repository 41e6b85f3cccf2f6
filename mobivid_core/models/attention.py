"""Attention with q/k RMS norm, and the GELU feed-forward: the two layers whose units pruning removes.

Paper: the server DiT's block. Both layers may have zero units left; what remains of them is their output bias.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.models.config import runs
from mobivid_core.models.rope import RotaryTable, rotate


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that may have zero inputs or outputs (a layer whose heads or neurons are all pruned)."""
    with warnings.catch_warnings():
        # Torch warns that initialising zero elements does nothing, which is what we want there.
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)


class HeadRMSNorm(nn.Module):
    """RMS norm of each head's vector, with its own weights: heads stay independent of each other."""

    def __init__(self, heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, N, head_dim) -> same shape."""
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * self.weight[:, None, :]


class AcrossHeadsRMSNorm(HeadRMSNorm):
    """RMS norm of all heads' vectors together, as in LTX-Video and Wan.

    So that a masked model equals the pruned one, a gate weighs its head's share: the mean is over the heads left.
    """

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """x: (B, N, H * head_dim), gate: (H,) or (B, H) of the heads -> (B, N, H * head_dim)."""
        if gate is None:
            return F.rms_norm(x, x.shape[-1:], self.weight.flatten(), self.eps)
        power = x.unflatten(-1, self.weight.shape).float().square().mean(-1)
        # All heads off: their output is gated away, and nothing may divide by zero.
        share = gate.float() / gate.float().sum(-1, keepdim=True).clamp_min(1e-6)
        mean = (power * share[..., None, :]).sum(-1, keepdim=True)
        return (x.float() * torch.rsqrt(mean + self.eps)).to(x.dtype) * self.weight.flatten()


class Attention(nn.Module):
    """Multi-head attention from tokens to themselves or to text.

    Head i owns the `head_dim` rows of `to_q`, `to_k`, `to_v` and columns of `to_out` from i * head_dim onwards.
    """

    def __init__(
        self, hidden: int, heads: int, head_dim: int, qk_norm: str = "per_head", rope_heads: Sequence[int] | None = None
    ) -> None:
        """Build the layer; `rope_heads` are its heads' slices of a table over all heads, None with a table per head."""
        super().__init__()
        self.heads, self.head_dim, self.across = heads, head_dim, qk_norm == "across_heads"
        self.rope_runs = None if rope_heads is None else runs(rope_heads)
        inner, norm = heads * head_dim, AcrossHeadsRMSNorm if self.across else HeadRMSNorm
        self.to_q, self.to_k, self.to_v = linear(hidden, inner), linear(hidden, inner), linear(hidden, inner)
        self.norm_q, self.norm_k = norm(heads, head_dim), norm(heads, head_dim)
        self.to_out = linear(inner, hidden)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None,
        table: RotaryTable | None = None, gate: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Attend from x (B, N, hidden) to context (B, L, hidden), None for itself: (B, N, hidden).

        The mask broadcasts to (B, H, N, L): bool (True = attend) or float (added to the scores). The rotary table is of
        the N tokens, over all heads of the unpruned model or for each; the gate multiplies heads, (H,) or (B, H).
        """
        if not self.heads:
            return self.to_out.bias.expand_as(x)
        context = x if context is None else context
        query, key = self.query_and_key(x, context, table, gate)
        heads = attend(query, key, self._split(self.to_v(context)), mask)
        if gate is not None:
            heads = heads * gate[..., None, None].to(heads.dtype)
        return self.to_out(heads.transpose(1, 2).flatten(2))

    def query_and_key(
        self, x: Tensor, context: Tensor, table: RotaryTable | None = None, gate: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the scores are products of: (B, H, N, head_dim) and (B, H, L, head_dim); arguments as `forward`."""
        query = self._normed(self.norm_q, self.to_q(x), gate)
        key = self._normed(self.norm_k, self.to_k(context), gate)
        return (query, key) if table is None else (self._rotated(query, table), self._rotated(key, table))

    def _normed(self, norm: HeadRMSNorm, x: Tensor, gate: Tensor | None) -> Tensor:
        """(B, N, H * head_dim) -> normalised heads (B, H, N, head_dim)."""
        return self._split(norm(x, gate)) if self.across else norm(self._split(x))

    def _rotated(self, x: Tensor, table: RotaryTable) -> Tensor:
        if self.rope_runs is None:
            return rotate(x, table)
        # LTX-Video rotates in float32: its fastest channels turn by thousands of radians a token.
        own = tuple(torch.cat([part[..., a:b, :, :] for a, b in self.rope_runs], dim=-3) for part in table)
        return rotate(x.float(), own).to(x.dtype)

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


def _halves(value: float) -> tuple[float, float]:
    """The largest float16 number below a positive value, and the rest."""
    half = float(np.float16(value))
    if half > value:
        half = float(np.nextafter(np.float16(value), np.float16(0)))
    return half, value - half


#: tanh GELU is x sigmoid(a x + b x^3) with these, each as `_halves`.
_TANH_GELU = tuple(_halves(scale * math.sqrt(8 / math.pi)) for scale in (1, 0.044715))


class Gelu(nn.Module):
    """GELU, "exact" or its "tanh" approximation, which is written out where a graph is exported.

    Conversion to Core ML drops the approximation's keyword silently. 0.5 (1 + tanh(u)) = sigmoid(2 u) keeps float16
    finite. Rounding the two constants would alone cost 1e-5: each is a float16 number and its (never negative) rest.
    """

    def __init__(self, kind: str = "exact") -> None:
        super().__init__()
        self.tanh = kind == "tanh"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.tanh:
            return F.gelu(x)
        if torch.compiler.is_exporting():
            (a, a_rest), (b, b_rest), square = *_TANH_GELU, x * x
            return x * torch.sigmoid(x * (square * b + a) + x * (square * b_rest + a_rest))
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """Linear, `Gelu`, linear: y = W_down GELU(W_up x + b_up) + b_down."""

    def __init__(self, hidden: int, width: int, gelu: str = "exact") -> None:
        super().__init__()
        self.width, self.activation = width, Gelu(gelu)
        self.up, self.down = linear(hidden, width), linear(width, hidden)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """x: (B, N, hidden) -> same; gate: (width,) or (B, width) multiplier of the neurons."""
        if not self.width:
            return self.down.bias.expand_as(x)
        neurons = self.activation(self.up(x))
        return self.down(neurons if gate is None else neurons * gate[..., None, :].to(neurons.dtype))
