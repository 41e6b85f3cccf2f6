"""Muon: momentum whose matrix-shaped updates are orthogonalised, for hidden layers.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the update is scaled to
the size of AdamW's (J. Liu et al. 2025), so that learning rates carry over. torch.optim.Muon takes two-dimensional
weights only; this one flattens convolution kernels, as its authors do.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mobivid_core.train.precision import MUON, choose

#: Coefficients of the Newton-Schulz iteration (quintic), from the source.
_A, _B, _C = 3.4445, -4.7750, 2.0315
#: Root mean square of an AdamW update, which ours is scaled to; decay of the momentum.
_ADAMW_RMS, _MOMENTUM = 0.2, 0.95
#: Parts of a diffusion transformer's parameter names that stay with AdamW: inputs, outputs, embeddings, tables.
DIT_NOT = ("proj_in", "proj_out", "scale_shift_table", "time_embed", "norm_", "caption_projection")


class Muon(torch.optim.Optimizer):
    """Optimiser of weights with two axes or more; the axes after the first are taken as one.

    The learning rate is on the scale of AdamW's, the momentum Nesterov's, the weight decay decoupled. `bf16`
    orthogonalises in bfloat16, None where that is faster; processes that train together must agree on it.
    """

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.0, bf16: bool | None = None) -> None:
        self.bf16 = bf16
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
                update = parameter.grad.lerp(state["momentum"], _MOMENTUM).flatten(1)
                alike.setdefault(tuple(update.shape), []).append((parameter, update))
            for shape, pairs in alike.items():
                scale = group["lr"] * _ADAMW_RMS * max(shape) ** 0.5
                updates = orthogonalise(torch.stack([update for _, update in pairs]), bf16=self.bf16)
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=-scale)


def orthogonalise(matrices: Tensor, bf16: bool | None = None) -> Tensor:
    """The nearest semi-orthogonal matrices (..., m, n), roughly: all singular values are moved to about 1 (0.7 to 1.2).

    In bfloat16, which the iteration tolerates, or float32; None: bfloat16 on a GPU, and by timing elsewhere.
    """
    bf16 = faster_in_bfloat16(matrices.device) if bf16 is None else bf16
    x = matrices.to(torch.bfloat16 if bf16 else torch.float32)
    x = x.flatten(0, -3) if x.ndim > 2 else x[None]
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        mix = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, mix, x, beta=_A)  # A x + (B gram + C gram^2) x
    return (x.mT if tall else x).reshape(matrices.shape).to(matrices.dtype)


def faster_in_bfloat16(device: torch.device) -> bool:
    """Whether Muon gains by bfloat16 there."""
    return device.type != "cpu" or choose(MUON).bf16


def muon_matrices(model: nn.Module, leave: tuple[str, ...] = DIT_NOT) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weight matrices for Muon, all other parameters), both in the model's order; `leave` are parts of names."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim >= 2 and not any(part in name for part in leave)]
    taken = {id(p) for p in matrices}
    return matrices, [p for _, p in named if id(p) not in taken]
