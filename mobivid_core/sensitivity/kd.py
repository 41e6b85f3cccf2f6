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

from mobivid_core.models.dit import Gates, MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet

FEATURE_WEIGHT = 0.1
BATCH = 32


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar |student - teacher|^2 / |teacher|^2 over whole tensors."""
    return (student - teacher).square().sum() / teacher.square().sum()


def kd_loss(
    student: tuple[Tensor, Sequence[Tensor]],  # velocity (B, C, t, h, w), features (B, N, hidden)
    teacher: tuple[Tensor, Sequence[Tensor]],
    wanted: Tensor,  # the clips' own velocities (B, C, t, h, w)
    data_weight: float,  # of their error; 0 leaves it out
    feature_weight: float = FEATURE_WEIGHT,  # of the mean feature term
) -> dict[str, Tensor]:
    """KD loss of one batch: `loss`, and its terms `output`, `features` and perhaps `data`."""
    output = relative_error(student[0], teacher[0])
    terms = [relative_error(s, t) for s, t in zip(student[1], teacher[1], strict=True)]
    features = torch.stack(terms).mean() if terms else output.new_zeros(())
    found = {"loss": output + feature_weight * features, "output": output, "features": features}
    if data_weight:
        found["data"] = relative_error(student[0], wanted)
        found["loss"] = found["loss"] + data_weight * found["data"]
    return found


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
        """(B,) KD loss of each sample of `rows`; without features its output term alone."""
        pairs = zip((output, *features), (self.output, *self.features), self.scales(), strict=False)
        return sum(scale * (s - t[rows]).square().flatten(1).sum(1) for s, t, scale in pairs)


@torch.no_grad()
def reference(
    teacher: MobiVidTransformer3DModel, calibration: CalibrationSet, feature_blocks: Sequence[int] = (),
    feature_weight: float = FEATURE_WEIGHT,
) -> Reference:  # fmt: skip
    """Run the teacher on a calibration set."""
    answers = [forward(teacher, part, feature_blocks) for _, part in calibration.batches(BATCH)]
    outputs, states = zip(*answers, strict=True)
    features = tuple(map(torch.cat, zip(*states, strict=True)))
    return Reference(calibration, torch.cat(outputs), features, tuple(feature_blocks), feature_weight)


def forward(
    model: MobiVidTransformer3DModel, batch: CalibrationSet, feature_blocks: Sequence[int] = (),
    gates: Gates | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """(velocity, features) of a model on a calibration batch."""
    return model(*batch.inputs, gates=gates, feature_blocks=feature_blocks, return_dict=False)


@torch.no_grad()
def output_errors(student: MobiVidTransformer3DModel, against: Reference) -> Tensor:
    """(N,) output term of the KD loss for each sample: what every comparison of recipes reports."""
    batches = against.calibration.batches(BATCH)
    return torch.cat([against.damage(rows, forward(student, batch)[0]) for rows, batch in batches])


def default_features(blocks: int) -> tuple[int, ...]:
    """Teacher blocks whose states enter sensitivity: a third and two thirds of the way."""
    return tuple(sorted({max(0, round(blocks * share) - 1) for share in (1 / 3, 2 / 3)}))
