"""A small network that reads a clip back: which shape, colour, motion and background does it show?

Stands in for the pretrained detectors, captioners and feature extractors behind VBench (the paper's quality
table), none of which ships inside a package. It is trained on rendered clips whose labels are exact, on the
split `judge` that no generator ever sees; `mobivid_core.train.judge` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY
from mobivid_core.errors import ParameterError


@dataclass(frozen=True)
class JudgeOutput:
    """Logits {attribute: (B, classes)} and features (B, F), of unit variance on the judge's training clips."""

    logits: dict[str, Tensor]
    features: Tensor


class Judge(ModelMixin, ConfigMixin):
    """Two towers, one embedding, one linear head an attribute.

    The appearance tower sees the first, middle and last frame in full (shapes need pixels); the motion tower
    sees all frames at half the size. The motion tower's last map keeps three bins of time and 2 x 2 of space,
    so that direction, growing and shrinking stay readable after pooling.

    Args:
        width: Channels of the first layers; later ones have two and four times as many.
        features: Width of the feature vector.
        frames: Frames that the network sees; other clips are pooled or repeated to it.
        size: Height and width that the network sees.
    """

    @register_to_config
    def __init__(self, width: int = 32, features: int = 64, frames: int = 17, size: int = 64) -> None:
        super().__init__()
        wide, widest = 2 * width, 4 * width
        self.appearance = nn.Sequential(
            *_conv(3, width, (1, 5, 5), (1, 2, 2)),
            *_conv(width, wide, (1, 3, 3), (1, 2, 2)),
            *_conv(wide, wide, (1, 3, 3), (1, 1, 1)),
            *_conv(wide, widest, (1, 3, 3), (1, 2, 2)),
            *_conv(widest, widest, (1, 3, 3), (1, 1, 1)),
        )
        self.motion = nn.Sequential(
            *_conv(3, width, (3, 5, 5), (2, 4, 4)),
            *_conv(width, wide, (1, 3, 3), (1, 1, 1)),
            *_conv(wide, wide, (3, 1, 1), (1, 1, 1)),
            *_conv(wide, wide, (1, 3, 3), (1, 2, 2)),
            *_conv(wide, wide, (3, 1, 1), (2, 1, 1)),
        )
        self.embed = nn.Linear(2 * widest + wide * 3 * 2 * 2, features)
        self.whiten = nn.BatchNorm1d(features, affine=False)
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(VOCABULARY[name])) for name in ATTRIBUTES})

    def forward(self, clip: Tensor) -> JudgeOutput:
        """Judge a batch (B, 3, T, H, W) in [-1, 1], any T, H and W."""
        seen = self.view(clip)
        stills = seen[:, :, [0, self.config.frames // 2, -1]].contiguous(memory_format=torch.channels_last_3d)
        small = F.avg_pool3d(seen, (1, 2, 2)).contiguous(memory_format=torch.channels_last_3d)
        moves = F.adaptive_avg_pool3d(self.motion(small), (3, 2, 2)).flatten(1)
        features = self.whiten(self.embed(torch.cat([self.look(stills), moves], 1)))
        hidden = F.relu(features)
        return JudgeOutput({name: head(hidden) for name, head in self.heads.items()}, features)

    def look(self, stills: Tensor) -> Tensor:
        """Appearance alone: (B, 3, K, size, size) to (B, 8 width), the mean over the K frames."""
        maps = self.appearance(stills)
        return torch.cat([maps.mean((2, 3, 4)), maps.amax((3, 4)).mean(2)], 1)

    def view(self, clip: Tensor) -> Tensor:
        """The clip as the network sees it: (B, 3, frames, size, size), by average pooling."""
        if clip.ndim != 5 or clip.shape[1] != 3:
            raise ParameterError(f"the judge takes clips (B, 3, T, H, W), got {tuple(clip.shape)}; add a batch axis?")
        target = (self.config.frames, self.config.size, self.config.size)
        return clip if tuple(clip.shape[2:]) == target else F.adaptive_avg_pool3d(clip, target)

    @torch.no_grad()
    def predict(self, clips: Tensor, batch: int = 32) -> Tensor:
        """(N, 4) int64 most likely classes, columns in the order of `captions.ATTRIBUTES`."""
        return self.read(clips, batch)[0]

    @torch.no_grad()
    def read(self, clips: Tensor, batch: int = 32) -> tuple[Tensor, Tensor]:
        """Classes (N, 4) int64 and features (N, F) float32 on the CPU, in bounded memory, in evaluation mode."""
        if not len(clips):
            raise ParameterError("no clips to judge: got an empty batch")
        was_training = self.training
        self.eval()
        classes, features = [], []
        for part in clips.split(batch):
            out = self(part.to(self.device, self.dtype))
            classes.append(torch.stack([out.logits[name].argmax(-1) for name in ATTRIBUTES], -1).cpu())
            features.append(out.features.float().cpu())
        self.train(was_training)
        return torch.cat(classes), torch.cat(features)


def accuracy(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Which clips are right: {attribute or "all": (N,) float32 of 0 and 1}, from predicted and true classes (N, 4)."""
    right = predicted == truth
    return {name: right[:, i].float() for i, name in enumerate(ATTRIBUTES)} | {"all": right.all(1).float()}


def _conv(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> list[nn.Module]:
    padding = tuple(k // 2 for k in kernel)
    return [
        nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    ]
