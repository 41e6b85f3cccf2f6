"""Training clips of the judge: rendered, mirrored, reversed and lightly degraded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY, label_indices
from mobivid_core.data.render import render_clips

#: Side of the clips that the judge sees.
VIEW_SIZE = 64
_MIRRORED = {"left": "right", "right": "left"}
_REVERSED = _MIRRORED | {"up": "down", "down": "up", "growing": "shrinking", "shrinking": "growing"}


@dataclass
class ClipPool:
    """A rolling store of rendered clips: each batch mixes a few fresh ones with re-used ones.

    Rendering costs more than a training step; the augmentation makes a re-used clip new again.
    """

    frames: int = 17  # frames a clip
    render_sizes: tuple[int, ...] = (64, 128)  # sizes to render at before pooling to 64 x 64, taken in turn
    capacity: int = 1024  # clips kept, as bytes
    fresh: float = 0.2  # share of a batch that is rendered for it
    device: torch.device | str = "cpu"  # where clips are rendered; they are kept on the CPU

    def __post_init__(self) -> None:
        self._clips = torch.empty(self.capacity, 3, self.frames, VIEW_SIZE, VIEW_SIZE, dtype=torch.uint8)
        self._labels = torch.empty(self.capacity, len(ATTRIBUTES), dtype=torch.long)
        self.rendered = 0

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of clips (B, 3, T, 64, 64) float32 in [-1, 1] and labels (B, 4) int64."""
        new = batch if self.rendered < batch else max(1, round(self.fresh * batch))
        slots = [(self.rendered + i) % self.capacity for i in range(new)]
        self._render(slots)
        held = min(self.rendered, self.capacity)
        chosen = np.concatenate([slots, rng.choice(held, batch - new)]).astype(np.int64)
        return self._clips[chosen].float() / 127.5 - 1, self._labels[chosen].clone()

    def _render(self, slots: list[int]) -> None:
        size = self.render_sizes[(self.rendered // max(1, len(slots))) % len(self.render_sizes)]
        indices = range(self.rendered, self.rendered + len(slots))
        drawn = render_clips("judge", indices, frames=self.frames, size=size, device=self.device)
        seen = F.adaptive_avg_pool3d(drawn.clips, (self.frames, VIEW_SIZE, VIEW_SIZE)).cpu()
        self._clips[slots] = ((seen + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        self._labels[slots] = label_indices(drawn.labels)
        self.rendered += len(slots)


def augment(clips: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, reverse and degrade clips (B, 3, T, H, W) in [-1, 1]; labels (B, 4) follow.

    A mirrored clip swaps left and right, a reversed one also swaps up and down, growing and shrinking.
    """
    clips, labels = clips.clone(), labels.clone()
    motion, names = ATTRIBUTES.index("motion"), VOCABULARY["motion"]
    for axis, swap in ((4, _MIRRORED), (2, _REVERSED)):
        chosen = torch.rand(len(clips), generator=generator) < 0.5
        clips[chosen] = clips[chosen].flip(axis)
        turned = torch.tensor([names.index(swap.get(name, name)) for name in names])
        labels[chosen, motion] = turned[labels[chosen, motion]]
    return torch.stack([_degrade(clip, generator) for clip in clips]), labels


def _degrade(clip: Tensor, generator: torch.Generator) -> Tensor:
    """One clip (3, T, H, W), degraded by a random subset of: coarse blocks, blur, smeared time, noise."""
    draw = torch.rand(8, generator=generator).tolist()
    out = clip[None]
    shape = out.shape[2:]
    if draw[0] < 0.3:
        factor = 2 if draw[1] < 0.6 else 4
        coarse = F.interpolate(F.avg_pool3d(out, (1, factor, factor)), shape, mode="trilinear")
        out = out.lerp(coarse, 0.4 + 0.6 * draw[2] if factor == 2 else 0.7 * draw[2])
    if draw[3] < 0.3:
        out = F.avg_pool3d(F.pad(out, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
    if draw[4] < 0.3:
        out = out.lerp(F.avg_pool3d(F.pad(out, (0, 0, 0, 0, 1, 1), mode="replicate"), (3, 1, 1), stride=1), draw[5])
    if draw[6] < 0.3:
        blocks = torch.randn(1, 3, 3, 8, 8, generator=generator)
        out = out + 0.12 * draw[7] * F.interpolate(blocks, shape, mode="nearest")
    noise = 0.12 * draw[1] ** 2 * torch.randn(out.shape, generator=generator)
    return (out + noise).clamp(-1, 1)[0]
