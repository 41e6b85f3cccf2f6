"""Classifier-free guidance: constant, within an interval of noise levels, or rescaled.

Paper: guidance of the server model; that it is constant is assumed. Guidance at all noise levels saturates colours and
spreads generated latents wider than real ones. Two remedies need no training: guide at some noise levels only
(Kynkaanniemi et al., arXiv 2404.07724), and pull the standard deviation of the guided clean estimate back to that of
the conditional one (Lin et al., arXiv 2305.08891, section 3.4, written there for the model's output).

A plain number is accepted wherever a `Guidance` is: it is the scale, everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from mobivid_core.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor

#: Timesteps reach a sampler in float32: noise levels are told apart to this.
_CLOSE = 1e-6


@dataclass(frozen=True)
class Guidance:
    """How far to push away from the caption-less velocity, and at which noise levels."""

    scale: float  # v_null + scale (v_text - v_null); 1 is without guidance
    low: float = 0.0  # noise levels up to here are not guided; 0 guides to the end
    high: float = 1.0  # noise levels above are not guided; 1 guides from the start
    # 0 leaves the guided clean estimate unchanged; 1 gives it the standard deviation of the conditional one
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale < 0:
            raise ParameterError(f"a guidance scale is a finite number from 0 up, got {self.scale}")
        if not 0 <= self.low < self.high <= 1:
            raise ParameterError(f"guided noise levels lie in 0 <= low < high <= 1, got {self.low} and {self.high}")
        if not 0 <= self.rescale <= 1:
            raise ParameterError(f"rescale is a share from 0 to 1, got {self.rescale}")

    def halved(self) -> Guidance:
        """Half of the scale's excess over none; what few steps often need."""
        return replace(self, scale=(1 + self.scale) / 2)

    @property
    def needed(self) -> bool:
        """Whether the caption-less velocity is needed at any noise level."""
        return self.scale != 1

    @property
    def everywhere(self) -> bool:
        """Whether all noise levels are guided."""
        return self.low == 0 and self.high == 1

    def inside(self, sigma: float | Tensor) -> bool | Tensor:
        """Whether noise levels are guided: low < sigma <= high."""
        return (sigma > self.low + _CLOSE) & (sigma <= self.high + _CLOSE)

    def at(self, sigma: float) -> float:
        """The scale at noise level `sigma`; 1 (unguided) outside the interval."""
        return self.scale if self.everywhere or self.inside(sigma) else 1.0

    def evaluations(self, sigmas: Iterable[float]) -> int:
        """Network evaluations of a clip sampled at these noise levels: two where guided, else one."""
        return sum(1 if self.at(float(sigma)) == 1 else 2 for sigma in sigmas)

    def combine(self, x: Tensor, sigma: float | Tensor, without: Tensor, with_text: Tensor) -> Tensor:
        """The guided velocity at `x` (B, C, t, h, w) from those of the empty caption and of the caption.

        `sigma` is a noise level inside the interval, or (B, 1, 1, 1, 1) one each.
        """
        guided = without + self.scale * (with_text - without)
        if self.rescale == 0:
            return guided
        clean, conditional = x - sigma * guided, x - sigma * with_text
        axes = tuple(range(1, x.ndim))
        narrower = conditional.std(axes, keepdim=True) / clean.std(axes, keepdim=True).clamp(min=1e-8)
        return (x - (self.rescale * narrower + 1 - self.rescale) * clean) / sigma

    @property
    def key(self) -> float | tuple[float, ...]:
        """Name of cached results: the scale alone where nothing else is set, as for a plain number."""
        return self.scale if self.everywhere and self.rescale == 0 else astuple(self)

    @property
    def name(self) -> str:
        """For tables, e.g. "3 at sigma .2 to .8, rescaled .7"."""
        where = "" if self.everywhere else f" at sigma {self.low:g} to {self.high:g}"
        return f"{self.scale:g}{where}{f', rescaled {self.rescale:g}' if self.rescale else ''}"

    def __format__(self, spec: str) -> str:
        return format(self.scale, spec) if self.key == self.scale else self.name

    def __str__(self) -> str:
        return self.name


def as_guidance(guidance: float | Guidance) -> Guidance:
    """A plain number as constant guidance of that scale.

    Raises:
        ParameterError: It is no number, or not one from 0 up.
    """
    if isinstance(guidance, Guidance):
        return guidance
    try:
        return Guidance(float(guidance))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"guidance is a number or a Guidance, got {guidance!r}") from error
