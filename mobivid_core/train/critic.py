"""What judges pictures in the VAE's fine-tuning: a patch critic, and the distance in a photo network's features.

The critic classifies patches of three neighbouring frames as real or decoded: hinge loss (Lim and Ye 2017) and
spectrally normalised convolutions (Miyato et al. 2018), as in patch discriminators of image codecs (VQGAN: Esser et al.
2021). A logit sees 54 x 54 pixels: texture and edges, not scenes.

The distance has LPIPS's form (Zhang et al. 2018) on EfficientNet-lite0. One of the evaluation's metrics looks through
the same network, at the same blocks, pooled over space: a VAE that was trained with it has an advantage there.
Simplified: LPIPS weighs channels by people's judgements; here all weigh alike.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mobivid_core.measure.image_features import load_backbone, stage_features

#: Neighbouring frames that are judged together.
FRAMES = 3


class PatchCritic(nn.Module):
    """Three frames as nine channels to a map of logits at an eighth of the resolution; high means real.

    Computes in float32 (on a GPU in its TF32 units): power iteration and autocast do not mix.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = [3 * FRAMES, width, 2 * width, 4 * width]
        down = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)]
        flat = [nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.Conv2d(4 * width, 1, 3, padding=1)]
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in (*down, *flat))

    def forward(self, triples: Tensor) -> Tensor:
        """(N, 3, 3, H, W), colours before frames -> (N, 1, H / 8, W / 8)."""
        with torch.autocast(triples.device.type, enabled=False):
            x = triples.float().flatten(1, 2).contiguous(memory_format=torch.channels_last)
            for layer in self.layers[:-1]:
                x = F.leaky_relu(layer(x), 0.2)
            return self.layers[-1](x)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's loss: real logits above 1, fake ones below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def draw_triples(clips: Tensor, others: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same `count` random triples of neighbouring frames of each clip.

    Two batches (B, 3, T, H, W), T >= 3, to two (count * B, 3, 3, H, W).
    """
    batch, frames = clips.shape[0], clips.shape[2]
    starts = torch.randint(frames - FRAMES + 1, (count * batch, 1), generator=generator)
    times = (starts + torch.arange(FRAMES)).to(clips.device)
    rows = torch.arange(batch, device=clips.device).repeat(count)[:, None]
    # indexed axes come first: (count * B, 3 frames, 3 colours, H, W)
    return clips[rows, :, times].transpose(1, 2), others[rows, :, times].transpose(1, 2)


class PerceptualDistance(nn.Module):
    """Mean squared distance of frozen features that have unit length at each place, summed over stages."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.net = copy.deepcopy(load_backbone()).to(device)

    def forward(self, frames: Tensor, real: Tensor) -> Tensor:
        """Scalar distance of two batches of frames (N, 3, H, W) in [-1, 1]; gradients flow to both."""
        both = torch.cat([frames, real]).contiguous(memory_format=torch.channels_last)
        total = frames.new_zeros(())
        for features in stage_features(self.net, both):
            unit = features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
            mine, theirs = unit.chunk(2)
            total = total + (mine - theirs).square().sum(1).mean()
        return total
