"""Discriminator: light heads on the frozen teacher's features at several depths.

Paper: part of the teacher is the frozen feature extractor (claim C30). Latents are re-noised, the teacher reads
them with caption and noise level, and at each chosen depth a small head gives one logit per token and one for the
whole clip. Only the heads are trained and stored.

Simplified: the heads' layout is assumed (it is not published): normalise, project, one convolution over the
latent grid, one logit a token; the clip's logit adds an inner product with the caption (projection discriminator).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobivid_core.errors import ParameterError

#: Kernel of the head's convolution over (t, h, w).
KERNELS = {"spatiotemporal": (3, 3, 3), "spatial": (1, 3, 3)}


def default_depths(blocks: int, count: int = 4) -> tuple[int, ...]:
    """At most `count` even depths up to three quarters of the teacher: its last blocks only undo the noise."""
    last = max(round(0.75 * blocks) - 1, 0)
    return tuple(sorted({round(last * (i + 1) / count) for i in range(count)}))


class FeatureHead(nn.Module):
    """One head: (B, N, hidden) features -> (B, N + 1) logits, one a token and one for the clip."""

    def __init__(self, hidden: int, text_dim: int, width: int, kind: str) -> None:
        super().__init__()
        kernel = KERNELS[kind]
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.project = nn.Linear(hidden, width)
        self.mix = nn.Conv3d(width, width, kernel, padding=tuple(k // 2 for k in kernel))
        self.token_logit = nn.Linear(width, 1)
        self.clip_logit = nn.Linear(width, 1)
        self.condition = nn.Linear(text_dim + 1, width)

    def forward(self, features: Tensor, grid: tuple[int, int, int], context: Tensor) -> Tensor:
        """Logits from features (B, t h w, hidden) of a (t, h, w) grid.

        `context` (B, text_dim + 1) is the mean caption state and sigma.
        """
        tokens = self.project(self.norm(features))
        volume = tokens.transpose(1, 2).unflatten(2, grid)
        tokens = tokens + self.mix(functional.silu(volume)).flatten(2).transpose(1, 2)
        tokens = functional.silu(tokens)
        pooled = tokens.mean(dim=1)
        matched = (self.condition(context) * pooled).sum(dim=1, keepdim=True) / pooled.shape[1] ** 0.5
        return torch.cat([self.token_logit(tokens).squeeze(-1), self.clip_logit(pooled) + matched], dim=1)


class TeacherDiscriminator(nn.Module):
    """Frozen teacher, under autocast where there is any, and trainable heads in float32."""

    def __init__(
        self, teacher: nn.Module, depths: Sequence[int] | None = None, *, width: int = 32, kind: str = "spatiotemporal"
    ) -> None:
        """Build heads of one of `KERNELS` for `teacher`, which is never changed.

        They read the outputs of the blocks `depths`, counted from 0; None takes `default_depths`.

        Raises:
            ParameterError: A depth outside the teacher, or an unknown kind.
        """
        super().__init__()
        sizes = teacher.sizes
        depths = default_depths(sizes.blocks) if depths is None else tuple(depths)
        if not depths or not all(0 <= d < sizes.blocks for d in depths):
            raise ParameterError(f"depths must lie in 0..{sizes.blocks - 1} (the teacher's blocks), got {list(depths)}")
        if kind not in KERNELS:
            raise ParameterError(f"unknown head kind {kind!r}; the kinds are {', '.join(KERNELS)}")
        self.depths = depths
        # In a tuple the teacher stays out of parameters(), state_dict() and train().
        self._teacher = (teacher,)
        self.heads = nn.ModuleList(FeatureHead(sizes.hidden, sizes.text_dim, width, kind) for _ in depths)

    @classmethod
    def seeded(cls, teacher: nn.Module, seed: int) -> TeacherDiscriminator:
        """Default heads initialised from `seed`; the global random stream is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(teacher)

    def forward(self, noisy: Tensor, sigma: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, depths x (N + 1)) of latents (B, C, t, h, w) at noise levels sigma (B,); high means real.

        Captions are text (B, L, D) and mask (B, L) bool.
        """
        (teacher,), grid = self._teacher, tuple(noisy.shape[2:])
        given = noisy.to(teacher.dtype), 1000.0 * sigma, text.to(teacher.dtype), mask
        features = teacher(*given, feature_blocks=self.depths).features
        # Heads in float32 under autocast too: the penalty divides small differences of logits by a small number.
        with torch.autocast(noisy.device.type, enabled=False):
            real = mask.unsqueeze(-1).to(text.dtype)
            mean = (text * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
            context = torch.cat([mean, sigma.unsqueeze(1)], dim=1)
            return torch.cat([h(f.float(), grid, context) for h, f in zip(self.heads, features, strict=True)], dim=1)
