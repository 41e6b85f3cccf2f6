"""Distance of frames in the features of a network trained on photographs (LPIPS's form: Zhang et al. 2018).

The network is EfficientNet-lite0 (`evaluate.image_features`), frozen. One of the evaluation's metrics looks through the
same network, at the same blocks, pooled over space: a VAE that was trained with this distance has an advantage there.

Simplified: LPIPS weighs channels by people's judgements; here all weigh alike.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mobivid_core.measure.image_features import STAGES, load_backbone


class PerceptualDistance(nn.Module):
    """Mean squared distance of features that have unit length at each place, summed over stages."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        net = copy.deepcopy(load_backbone())
        self.stem = nn.ModuleList([net._conv_stem, net._bn0, net._swish])
        self.blocks = nn.ModuleList(net._blocks[: STAGES[-1]])
        self.to(device).eval().requires_grad_(False)

    def forward(self, frames: Tensor, real: Tensor) -> Tensor:
        """Scalar distance of two batches of frames (N, 3, H, W) in [-1, 1]; gradients flow to both."""
        both = torch.cat([frames, real]).contiguous(memory_format=torch.channels_last)
        total = frames.new_zeros(())
        for features in self._features(both):
            unit = features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
            mine, theirs = unit.chunk(2)
            total = total + (mine - theirs).square().sum(1).mean()
        return total

    def _features(self, frames: Tensor) -> list[Tensor]:
        x, found = frames, []
        for layer in self.stem:
            x = layer(x)
        for count, block in enumerate(self.blocks, 1):
            x = block(x)
            if count in STAGES:
                found.append(x)
        return found
