"""Calibration batches: fixed (noisy latents, timestep, text) on which every recipe is measured.

Paper: KD-guided sensitivity on calibration clips over timesteps. Noise levels are stratified: quantiles of the
logit-normal law used in training, so that a small set still covers all timesteps evenly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.flow.path import DROP_TEXT, interpolate

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset


@dataclass(frozen=True)
class CalibrationSet:
    """Model inputs with their flow-matching targets."""

    noisy: Tensor  # (N, C, t, h, w) x_t = (1 - sigma) x0 + sigma noise
    timestep: Tensor  # (N,) 1000 * sigma
    text: Tensor  # (N, L, D) token states
    mask: Tensor  # (N, L) bool, True for real tokens
    velocity: Tensor  # (N, C, t, h, w) the data's own target noise - x0

    def __len__(self) -> int:
        return len(self.noisy)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a model is called with."""
        return self.noisy, self.timestep, self.text, self.mask

    def take(self, chosen: slice | Tensor) -> CalibrationSet:
        """The samples at `chosen`: a slice, indices or (N,) bool."""
        return CalibrationSet(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def first(self, samples: int) -> CalibrationSet:
        """The first samples (a random subset of clips and noise levels: the order is shuffled)."""
        return self.take(slice(samples))

    def batches(self, size: int) -> Iterator[tuple[slice, CalibrationSet]]:
        """Consecutive parts of at most `size` samples, with their rows."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.take(rows)


def stratified_sigmas(samples: int, generator: torch.Generator) -> Tensor:
    """(samples,) noise levels: the quantiles (i + 1/2) / samples of the logit-normal law, shuffled."""
    quantiles = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    sigmas = torch.sigmoid(torch.special.ndtri(quantiles)).float()
    return sigmas[torch.randperm(samples, generator=generator)]


def calibration_set(
    latents: Tensor,  # (M, C, t, h, w) normalised
    text: Tensor,  # (M, L, D) token states
    mask: Tensor,  # (M, L) bool
    *,
    samples: int | None = None,  # to draw, M if None; more than M reuses clips with other noise
    seed: int = 0,  # of clip order, noise and noise levels
    null: tuple[Tensor, Tensor] | None = None,
) -> CalibrationSet:
    """Draw calibration samples from encoded clips; the same arguments always give the same set.

    `null` is (text (1, L, D), mask (1, L)) of the empty caption, which a share `DROP_TEXT` of the samples gets: guided
    sampling calls the model without text too. A ParameterError says if there are no clips, or lengths differ.
    """
    lengths = len(latents), len(text), len(mask)
    if len(set(lengths)) > 1 or not len(latents):
        raise ParameterError("need as many texts and masks as latents, got {}, {} and {}".format(*lengths))
    samples = samples or len(latents)
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(len(latents), generator=generator) for _ in range(-(-samples // len(latents)))]
    chosen = torch.cat(rounds)[:samples]
    clean, text, mask = latents[chosen].float(), text[chosen].float(), mask[chosen]
    noise = torch.randn(clean.shape, generator=generator)
    sigma = stratified_sigmas(samples, generator)
    if null is not None:
        dropped = torch.randperm(samples, generator=generator)[: round(DROP_TEXT * samples)]
        text[dropped], mask[dropped] = null[0].float(), null[1]
    return CalibrationSet(interpolate(clean, noise, sigma), 1000 * sigma, text, mask, noise - clean)


def calibration_from(dataset: LatentDataset, *, samples: int | None = None, seed: int = 0) -> CalibrationSet:
    """`calibration_set` of a latent dataset with each clip's own caption, one sample in ten unconditional."""
    latents, text, mask = dataset.batch(torch.arange(len(dataset)))
    null = (dataset.null_text, dataset.null_mask)
    return calibration_set(latents, text, mask, samples=samples, seed=seed, null=null)
