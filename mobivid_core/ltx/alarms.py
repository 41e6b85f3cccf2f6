"""Alarms for long runs: samples that saturate, are flat, static, repeated or not finite.

While a student trains, a few clips are sampled from fixed noise and captions, and compared with real latents. A run
ends when a measure leaves its limits after having been inside, and the last state whose samples were fine is kept. A
freshly pruned student may start outside: it gets its alarm only after it has been inside once. NaN ends at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mobivid_core.files import replacing

#: Each measure's limits as a share of real clips' own value, and what leaving them means below and above.
LIMITS = {
    "texture": (0.2, math.inf, "frames are one solid colour", ""),
    "motion": (0.2, math.inf, "clips stand still", ""),
    "variety": (0.2, math.inf, "different captions give the same clip", ""),
    "spread": (0.3, 3.0, "the samples fade to grey", "the samples saturate"),
}


def sample_measures(samples: Tensor, real: Tensor) -> dict[str, float]:
    """How sampled latents (K, C, t, h, w) of different captions compare with real ones (M, C, t, h, w), two at least.

    "texture" (variation inside a frame), "motion" (from frame to frame; 1 where t = 1) and "variety" (distance between
    clips), as shares of the samples' own "spread" (standard deviation); each over the real clips' own. NaN where a
    sample is not finite.
    """
    ours, theirs = _measures(samples), _measures(real)
    return {name: ours[name] / max(theirs[name], 1e-12) for name in LIMITS}


def _measures(clips: Tensor) -> dict[str, float]:
    clips = clips.float()
    spread = float(clips.std())
    moving = clips.diff(dim=2).square().mean().sqrt() if clips.shape[2] > 1 else spread
    parts = {
        "texture": (clips - clips.mean((-2, -1), keepdim=True)).square().mean().sqrt(),
        "motion": moving,
        "variety": torch.pdist(clips.flatten(1)).mean() / clips[0].numel() ** 0.5,
    }
    # of the samples' own spread, so that each fault has its own name
    return {name: float(value) / (spread if spread != 0 else 1.0) for name, value in parts.items()} | {"spread": spread}


@dataclass
class Watch:
    """Called with each row of a training log; text that it returns ends the run (`train(..., on_log=watch)`)."""

    model: nn.Module
    # Makes (K, C, t, h, w) latents from the model, always of the same noise and captions
    sample: Callable[[nn.Module], Tensor]
    real: Tensor  # (M, C, t, h, w) clips of the data
    good: Path  # file of the weights at the last check whose samples were fine
    every: int = 1  # rows of the log between checks
    patience: int = 2  # checks in a row that a measure may be outside
    _rows: int = 0
    _inside: set[str] = field(default_factory=set)
    _outside: Counter[str] = field(default_factory=Counter)

    def __call__(self, row: dict[str, float]) -> str | None:
        """Check if it is time; the reason to end, or None."""
        self._rows += 1
        if not math.isfinite(row["loss"]):
            return f"alarm at step {int(row['step'])}: the loss is not finite"
        if (self._rows - 1) % self.every:
            return None
        training = self.model.training
        with torch.no_grad():
            measures = sample_measures(self.sample(self.model.eval()).cpu(), self.real)
        self.model.train(training)
        if reason := self.judge(measures):
            return f"alarm at step {int(row['step'])}: {reason}"
        if not any(self._outside.values()):
            self.keep()
        return None

    def judge(self, measures: dict[str, float]) -> str | None:
        """The reason to end that one check's measures give, or None."""
        for name, (low, high, below, above) in LIMITS.items():
            value = measures[name]
            if not math.isfinite(value):
                return "a sample is not finite"
            if low <= value <= high:
                self._inside.add(name)
                self._outside[name] = 0
                continue
            self._outside[name] += 1
            if name in self._inside and self._outside[name] >= self.patience:
                what = below if value < low else above
                return f"{what} ({name} is {value:.2g} of real clips'; limits {low:g} to {high:g})"
        return None

    def keep(self) -> None:
        """Write the model's weights as good ones."""
        with replacing(self.good) as part:
            save_file({k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}, part)

    def restore(self) -> bool:
        """Put the last good weights back into the model; False where there were none yet."""
        if not self.good.is_file():
            return False
        self.model.load_state_dict(load_file(self.good))
        return True
