"""What a single clip looks like: consistency of subject and background, and sharpness against real clips.

VBench takes DINO, CLIP and MUSIQ features for these; here they come from the judge's class probabilities,
from geometry that the renderer guarantees, and from statistics of edges and noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.data.render import HUES
from mobivid_core.errors import ParameterError
from mobivid_core.measure.judge import Judge

#: Share of the side of each corner square that the renderer's objects practically never reach (a test counts).
CORNER = 0.125
#: Frames of a clip that subject consistency looks at.
SUBJECT_FRAMES = 5
#: Step between the frames whose sharpness is looked at.
IMAGING_EVERY = 4
_EPSILON = 1e-3
#: Part of the side that the middle covers: objects practically always overlap it.
_MIDDLE = 0.5
#: A pixel is vivid when its largest and smallest channel differ by more; backgrounds but photos and film stay below.
_VIVID = 0.22
#: White is what is left: fewer vivid pixels than this share of the middle.
_COLOURED_SHARE = 0.12


@torch.no_grad()
def subject_consistency(clips: Tensor, judge: Judge) -> Tensor:
    """Does the object stay the same thing? VBench's formula on the judge's shape and colour probabilities.

    Each of a few frames of clips (B, 3, T, H, W), held still, is judged alone; the cosine similarities to the first
    and to the previous frame are averaged: (B,) in [0, 1], 1 for a frozen clip.
    """
    b, c, t, h, w = clips.shape
    if t < 2:
        raise ParameterError(f"subject consistency needs two frames or more, got {t}")
    chosen = torch.linspace(0, t - 1, min(SUBJECT_FRAMES, t)).round().long()
    small = F.adaptive_avg_pool2d(clips[:, :, chosen].transpose(1, 2).reshape(-1, c, h, w), judge.config.size)
    stills = small.unsqueeze(2).expand(-1, -1, judge.config.frames, -1, -1)
    posteriors = []
    for part in stills.split(32):
        logits = judge(part.to(judge.device)).logits
        posteriors.append(torch.cat([logits[name].softmax(-1) for name in ("shape", "colour")], -1).cpu())
    return _consistency(F.normalize(torch.cat(posteriors), dim=-1).reshape(b, len(chosen), -1))


def background_consistency(clips: Tensor) -> Tensor:
    """Does the background stay put? Exact geometry: backgrounds are still, and objects leave the corners free.

    (B,) 1 - mean absolute difference on [0, 1] of the corner squares from those of the first and the previous frame.
    """
    corners = corner_pixels(clips) / 2
    to_first = (corners[:, :, 1:] - corners[:, :, :1]).abs().mean((1, 2, 3))
    to_previous = corners.diff(dim=2).abs().mean((1, 2, 3))
    return 1 - (to_first + to_previous) / 2


def corner_pixels(frames: Tensor) -> Tensor:
    """The four corner squares of (B, C, T, H, W), flattened to (B, C, T, P)."""
    side = max(1, round(CORNER * min(frames.shape[-2:])))
    ends = (slice(None, side), slice(-side, None))
    return torch.cat([frames[..., y, x].flatten(3) for y in ends for x in ends], -1)


@dataclass(frozen=True)
class ImagingReference:
    """How sharp and clean real frames are: a Gaussian over the three `imaging_statistics`, as NIQE fits one."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def fit(cls, statistics: Tensor) -> ImagingReference:
        """From the statistics (N, 3) of real clips, N >= 4."""
        if len(statistics) < 4:
            raise ParameterError(f"the imaging reference needs four real clips or more, got {len(statistics)}")
        rows = statistics.double()
        return cls(rows.mean(0), torch.cov(rows.T) + 1e-4 * torch.eye(rows.shape[1], dtype=torch.float64))

    def score(self, statistics: Tensor) -> Tensor:
        """(B,) exp(-d^2 / 8) of statistics (B, 3) for the Mahalanobis distance d, root mean square over statistics.

        It is 0.88 at one and 0.14 at four.
        """
        off = statistics.double() - self.mean
        squared = (off @ torch.linalg.inv(self.covariance) * off).sum(-1) / len(self.mean)
        return torch.exp(-squared / 8).float()


def imaging_statistics(clips: Tensor) -> Tensor:
    """(B, 3) statistics of sharpness and noise, each the mean over every fourth frame.

    Log of the 99th percentile of the gradient (blur lowers it), log of the 10th percentile of the absolute Laplacian
    (noise raises it), log ratio of fine to coarse detail (both move it).
    """
    clips = clips[:, :, ::IMAGING_EVERY]
    b, _, t, h, w = clips.shape
    grey = clips.mean(1).reshape(b * t, 1, h, w) / 2 + 0.5
    dx, dy = grey[..., 1:, 1:] - grey[..., 1:, :-1], grey[..., 1:, 1:] - grey[..., :-1, 1:]
    edges = (dx.square() + dy.square()).sqrt().flatten(1)
    coarse = F.avg_pool2d(grey, 2)
    fine = (grey - F.interpolate(coarse, (h, w), mode="bilinear")).abs().flatten(1)
    broad = (coarse - F.interpolate(F.avg_pool2d(coarse, 2), coarse.shape[-2:], mode="bilinear")).abs().flatten(1)
    laplacian = (dx[..., 1:, 1:] - dx[..., 1:, :-1] + dy[..., 1:, 1:] - dy[..., :-1, 1:]).abs().flatten(1)
    detail = (fine.mean(1) + _EPSILON) / (broad.mean(1) + _EPSILON)
    values = [_percentile(edges, 0.99), _percentile(laplacian, 0.10), detail]
    return torch.stack([(v + _EPSILON).log().reshape(b, t).mean(1) for v in values], -1)


def read_colour(clips: Tensor) -> Tensor:
    """(B,) the colour of the object in the middle of clips (B, 3, T, H, W), as an index of `VOCABULARY["colour"]`."""
    h, w = clips.shape[-2:]
    y, x = round(h * (1 - _MIDDLE) / 2), round(w * (1 - _MIDDLE) / 2)
    pixels = clips[:, :, ::4, y : h - y : 2, x : w - x : 2].flatten(2).clamp(-1, 1) / 2 + 0.5
    chroma = pixels.amax(1) - pixels.amin(1)
    weight = chroma * (chroma > _VIVID)
    phase = (_chroma_plane(pixels) * weight[:, None]).sum(-1)
    names = [name for name in VOCABULARY["colour"] if name != "white"]
    axes = F.normalize(_chroma_plane(torch.tensor([HUES[name] for name in names]).T[None])[0].T, dim=1)
    nearest = torch.tensor([VOCABULARY["colour"].index(name) for name in names])[(phase @ axes.T).argmax(1)]
    white = (chroma > _VIVID).float().mean(1) < _COLOURED_SHARE
    return torch.where(white, VOCABULARY["colour"].index("white"), nearest)


def _percentile(values: Tensor, share: float) -> Tensor:
    """Percentile along the last axis (torch.quantile refuses large inputs)."""
    return values.kthvalue(max(1, round(share * values.shape[-1])), dim=-1).values


def _consistency(rows: Tensor) -> Tensor:
    """VBench: mean over frames of (similarity to the first + similarity to the previous) / 2; rows (B, K, D)."""
    first = (rows[:, 1:] * rows[:, :1]).sum(-1)
    previous = (rows[:, 1:] * rows[:, :-1]).sum(-1)
    return ((first + previous) / 2).mean(1).clamp(0, 1)


def _chroma_plane(pixels: Tensor) -> Tensor:
    """(B, 3, P) colours to their two opponent axes (B, 2, P): the angle is the hue."""
    r, g, b = pixels.unbind(1)
    return torch.stack([r - (g + b) / 2, 0.866 * (g - b)], 1)
