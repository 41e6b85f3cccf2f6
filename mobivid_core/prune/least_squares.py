"""Least squares with a multiplier on every output, for many outputs at once, by preconditioned conjugate gradients.

    min over W, b of  sum |m * (W a + b) - r|^2 + ridge |(W, b) - (W0, b0)|^2

With m different for each sample and output channel, every channel c has its own Gram matrix G_c = sum m_c^2 a a^T.
Forming and factoring them all costs channels x inputs^3; conjugate gradients need only products with the activations,
and converge in about ten steps when preconditioned by the one matrix that is right if m were the same for all channels
up to a factor. With m = 1 the preconditioner is exact and one step is enough.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def solve_gated(
    layer: torch.nn.Linear,  # Whose W and b are solved for
    inner: Tensor,  # (B, N, k) inputs a
    gate: Tensor | None,  # (B, D) multiplier m of the outputs, or None for 1
    wanted: Tensor,  # (B, N, D) targets r
    ridge: float,  # pull towards the layer's weights, relative to the mean diagonal of each channel's Gram matrix
    steps: int = 12,  # most steps of conjugate gradients
    tolerance: float = 1e-2,  # stop when the gradient has fallen to this share of its first norm
) -> tuple[float, float]:
    """Write the solution into `layer` (k inputs, D outputs), starting from its weights.

    Returns:
        Relative errors |m * (W a + b) - r|^2 / |r|^2 (before, after).
    """
    inner = torch.cat([inner, inner.new_ones(*inner.shape[:2], 1)], dim=-1)
    gate = wanted.new_ones(1, 1, wanted.shape[-1]) if gate is None else gate[:, None]
    start = torch.cat([layer.weight, layer.bias[:, None]], dim=1).T.to(inner.dtype)  # (k + 1, D)
    residual = wanted - gate * (inner @ start)
    change = _conjugate_gradients(inner, gate, residual, ridge, steps, tolerance)
    solved = (start + change).T
    layer.weight.copy_(solved[:, :-1])
    layer.bias.copy_(solved[:, -1])
    power = wanted.double().square().sum().clamp_min(1e-30)
    after = residual - gate * (inner @ change)
    return float(residual.double().square().sum() / power), float(after.double().square().sum() / power)


def _conjugate_gradients(
    inner: Tensor, gate: Tensor, residual: Tensor, ridge: float, steps: int, tolerance: float
) -> Tensor:
    """Change of the weights (k + 1, D); every column is a system of its own."""
    rows = inner.flatten(0, 1)
    weight = gate.square().expand(len(inner), -1, -1)  # (S, 1, D)
    # Mean over channels, then each channel's share of it: G_c is about share_c * gram.
    per_sample, share = weight.mean(-1, keepdim=True), weight.mean((0, 1)) / weight.mean().clamp_min(1e-30)
    gram = ((per_sample * inner).flatten(0, 1).T @ rows).double()
    pull = ridge * gram.diagonal().mean().clamp_min(1e-12)
    factor = torch.linalg.cholesky(gram + pull * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    share = share.clamp_min(1e-12)

    def apply(x: Tensor) -> Tensor:
        return rows.T @ (weight * (inner @ x)).flatten(0, 1) + (pull * share).to(x.dtype) * x

    def precondition(x: Tensor) -> Tensor:
        return (torch.cholesky_solve(x.double(), factor) / share).to(x.dtype)

    change = torch.zeros_like(rows.T @ residual.flatten(0, 1))
    gradient = rows.T @ (gate * residual).flatten(0, 1)
    first = gradient.norm(dim=0).clamp_min(1e-30)
    direction = step = precondition(gradient)
    slope = (gradient * step).sum(0)
    for _ in range(steps):
        applied = apply(direction)
        length = slope / (direction * applied).sum(0).clamp_min(1e-30)
        change = change + length * direction
        gradient = gradient - length * applied
        if bool((gradient.norm(dim=0) <= tolerance * first).all()):
            break
        step = precondition(gradient)
        slope, previous = (gradient * step).sum(0), slope
        direction = step + slope / previous.clamp_min(1e-30) * direction
    return change
