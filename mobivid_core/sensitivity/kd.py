"""The KD loss: distance of a student from its teacher, in its output and in matched features.

    L = |y - y*|^2 / <|y*|^2>  +  w * mean_k |f_k - f*_k|^2 / <|f*_k|^2>

with y the velocity, f_k token states after a block, * the teacher and <.> the mean over the reference set. Each term is
a share of the teacher's power: 0 for a perfect student, 1 for one that outputs zero. (Paper: KD-guided pruning; its
own weighting is not known, so w is this project's choice.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.gates import Gates
from mobivid_core.sensitivity.calibration import CalibrationSet

FEATURE_WEIGHT = 0.1
BATCH = 32


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar |student - teacher|^2 / |teacher|^2 over whole tensors."""
    return (student - teacher).square().sum() / teacher.square().sum()


def kd_loss(
    student: tuple[Tensor, Sequence[Tensor]],
    teacher: tuple[Tensor, Sequence[Tensor]],
    feature_weight: float = FEATURE_WEIGHT,
) -> dict[str, Tensor]:
    """KD loss of one batch: `loss`, and its terms `output` and `features`.

    `student` and `teacher` are (velocity (B, C, t, h, w), features [(B, N, hidden)]); `feature_weight` is that of the
    mean feature term.
    """
    output = relative_error(student[0], teacher[0])
    terms = [relative_error(s, t) for s, t in zip(student[1], teacher[1], strict=True)]
    features = torch.stack(terms).mean() if terms else output.new_zeros(())
    return {"loss": output + feature_weight * features, "output": output, "features": features}


def with_data(terms: dict[str, Tensor], student: Tensor, wanted: Tensor, weight: float) -> dict[str, Tensor]:
    """KD terms with the error of the clips' own velocities, if that has a weight."""
    if not weight:
        return terms
    data = relative_error(student, wanted)
    return {**terms, "data": data, "loss": terms["loss"] + weight * data}


@dataclass(frozen=True)
class MatchedFeatures:
    """Which student blocks' outputs are compared with which teacher blocks' outputs."""

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The teacher's outputs on a calibration set, computed once."""

    calibration: CalibrationSet
    output: Tensor  # (N, C, t, h, w)
    features: tuple[Tensor, ...] = ()  # one (N, tokens, hidden) for each block of `feature_blocks`
    feature_blocks: tuple[int, ...] = ()  # teacher blocks whose outputs are kept
    feature_weight: float = FEATURE_WEIGHT  # w of the KD loss

    def scales(self) -> list[float]:
        """Factor of each squared term: 1 / <|y*|^2>, then w / K / <|f*_k|^2>."""
        output = 1.0 / float(self.output.square().flatten(1).sum(1).mean())
        share = self.feature_weight / max(1, len(self.features))
        return [output, *(share / float(f.square().flatten(1).sum(1).mean()) for f in self.features)]

    def damage(self, rows: slice, output: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """(B,) KD loss of each sample of `rows`."""
        pairs = zip((output, *features), (self.output, *self.features), self.scales(), strict=True)
        return sum(scale * (s - t[rows]).square().flatten(1).sum(1) for s, t, scale in pairs)


@torch.no_grad()
def reference(
    teacher: MobiVidTransformer3DModel,
    calibration: CalibrationSet,
    feature_blocks: Sequence[int] = (),
    feature_weight: float = FEATURE_WEIGHT,
) -> Reference:
    """Run the teacher on a calibration set."""
    parts = [forward(teacher, batch, feature_blocks) for _, batch in calibration.batches(BATCH)]
    output = torch.cat([sample for sample, _ in parts])
    features = tuple(torch.cat([f[k] for _, f in parts]) for k in range(len(feature_blocks)))
    return Reference(calibration, output, features, tuple(feature_blocks), feature_weight)


def forward(
    model: MobiVidTransformer3DModel,
    batch: CalibrationSet,
    feature_blocks: Sequence[int] = (),
    gates: Gates | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(velocity, features) of a model on a calibration batch."""
    inputs = batch.noisy, batch.timestep, batch.text, batch.mask
    return model(*inputs, gates=gates, feature_blocks=feature_blocks, return_dict=False)


@torch.no_grad()
def output_errors(student: MobiVidTransformer3DModel, against: Reference) -> Tensor:
    """(N,) output term of the KD loss for each sample: what every comparison of recipes reports."""
    scale = against.scales()[0]
    parts = [
        scale * (forward(student, batch)[0] - against.output[rows]).square().flatten(1).sum(1)
        for rows, batch in against.calibration.batches(BATCH)
    ]
    return torch.cat(parts)


def default_features(blocks: int) -> tuple[int, ...]:
    """Teacher blocks whose states enter sensitivity: a third and two thirds of the way."""
    return tuple(sorted({max(0, round(blocks * share) - 1) for share in (1 / 3, 2 / 3)}))
