"""Every pruning criterion of notebook 03, on the same calibration set and units, so that rankings can be compared."""

from __future__ import annotations

from dataclasses import replace

from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import FFN_SLICES, gauss_newton_sensitivity
from mobivid_core.sensitivity.estimators import magnitude_scores, task_loss_scores
from mobivid_core.sensitivity.kd import Reference
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.studies.library_scores import activation_scores, weight_hessian_scores, weight_taylor_scores


def sliced(scores: Scores, slices: int = FFN_SLICES) -> Scores:
    """The same scores with FFN neurons summed over slices; unchanged if they are slices already."""
    return scores if len(scores.ffn[0]) == slices else replace(scores, ffn=scores.ffn_slices(slices))


def criteria(
    teacher: MobiVidTransformer3DModel, calibration: CalibrationSet, against: Reference, seed: int = 0
) -> dict[str, Scores]:
    """Scores of every block, head and FFN slice by our estimator, by the task loss and by the libraries' criteria.

    Args:
        teacher: The model to prune.
        calibration: Samples for the criteria that need the task loss.
        against: The teacher's own answers on the same samples.
        seed: Seed of the random probes.

    Returns:
        {name of the criterion: scores}; each in a unit of its own, only Gauss-Newton in that of the KD loss.
    """
    found = {
        f"Gauss-Newton, {probes} probe{'s' * (probes > 1)}": gauss_newton_sensitivity(
            teacher, against, probes, seed=seed
        )[1]
        for probes in (1, 4)
    }
    found["gate gradient, task loss"], found["gate Fisher, task loss"] = task_loss_scores(teacher, calibration)
    found["weight magnitude"] = magnitude_scores(teacher)
    found["weight Taylor (as torch-pruning)"] = weight_taylor_scores(teacher, calibration)
    found["weight Hessian (as torch-pruning)"] = weight_hessian_scores(teacher, calibration)
    found["activation size (as Minitron)"] = activation_scores(teacher, calibration)
    return {name: sliced(scores) for name, scores in found.items()}
