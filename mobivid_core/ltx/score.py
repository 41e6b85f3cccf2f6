"""Scores of every block, head and neuron of a large transformer, sample by sample, with checkpointed backward passes.

Paper: KD-guided sensitivity. The estimator is `sensitivity.damage.gauss_newton_sensitivity`; here it sees one sample
at a time, each result is a file, and the mean over the files is the score: bounded memory, and resumable.

Simplified: the output term of the KD loss alone, without features.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mobivid_core.distill.trajectory import tensors_digest
from mobivid_core.errors import CheckpointError
from mobivid_core.ltx.shards import as_inputs
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import Grid, dit_flops
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.sensitivity.calibration import CalibrationSet
from mobivid_core.sensitivity.damage import gauss_newton_sensitivity
from mobivid_core.sensitivity.kd import Reference, forward
from mobivid_core.sensitivity.scores import UNIT_KINDS, Scores


def score(
    model: MobiVidTransformer3DModel, calibration: CalibrationSet, probes: int, seed: int, folder: Path
) -> Scores:
    """Score a frozen model on its device; finished samples in `folder` are not computed again.

    `probes` are random sign vectors a sample: the error falls as 1/sqrt(probes * samples). Gradient checkpointing is
    switched on. `folder` gets `parts/` and the scores (`Scores.load(folder, "gauss_newton_<probes>")`).
    """
    model.requires_grad_(False).eval().enable_gradient_checkpointing()
    place = folder / "parts" / _key(model, calibration, probes, seed)
    samples, grid = len(calibration), tuple(calibration.noisy.shape[2:])
    pflop = score_flops(model.sizes, grid, calibration.text.shape[1], samples, probes) / 1e15
    print(
        f"scoring: {samples} samples x {probes} probes, {pflop:.3g} PFLOP: about {pflop / 0.1:.3g} s "
        f"at 100 TFLOP/s (a large GPU), {pflop / 1e-4 / 60:.3g} minutes at 0.1 TFLOP/s (two processor cores)"
    )
    parts, fresh, began = [], 0, time.perf_counter()
    for i in range(samples):
        name = f"sample-{i:04d}"
        try:
            part = Scores.load(place, name)
        except CheckpointError:
            sample = as_inputs(calibration.take(slice(i, i + 1)), model)
            with torch.no_grad():
                answer = Reference(sample, forward(model, sample)[0].float())
            found, _ = gauss_newton_sensitivity(model, answer, probes, seed=seed * 100_003 + i)
            part = replace(found, estimator=name, notes={"power": 1 / answer.scales()[0]})
            part.save(place)
            fresh += 1
            each = (time.perf_counter() - began) / fresh
            print(f"{name}: {each:.1f} s a sample, {each * (samples - i - 1) / 60:.1f} minutes to go")
        parts.append(part)
    notes = {"samples": samples, "probes": probes, "seed": seed, "features": []}
    found = replace(_mean(parts), estimator=f"gauss_newton_{probes}", notes=notes)
    found.check(model.sizes)
    found.save(folder)
    return found


def score_flops(sizes: DiTConfig, grid: Grid, text_tokens: int, samples: int, probes: int) -> float:
    """FLOPs of scoring: two forward passes a sample, and a checkpointed backward pass for each probe."""
    # The latter is the forward pass again, and twice as much for the gradients.
    return float(dit_flops(sizes, grid, text_tokens)["total"]) * samples * (2 + 3 * probes)


def _mean(parts: list[Scores]) -> Scores:
    """Mean damage; each part is relative to its own sample's power, the mean to that of all."""
    power = np.array([part.notes["power"] for part in parts])
    weights = power / power.mean() / len(parts)

    def mixed(values: Iterable[np.ndarray]) -> np.ndarray:
        return sum(w * value for w, value in zip(weights, values, strict=True))

    blocks = mixed(part.blocks for part in parts)
    kinds = {k: tuple(map(mixed, zip(*(getattr(part, k) for part in parts), strict=True))) for k in UNIT_KINDS[1:]}
    return replace(parts[0], blocks=blocks, **kinds, seconds=sum(part.seconds for part in parts))


def _key(model: MobiVidTransformer3DModel, calibration: CalibrationSet, probes: int, seed: int) -> str:
    """Short hash of the inputs of a part: sizes, some weights, the noise and the settings."""
    word = json.dumps([model.sizes.as_kwargs(), probes, seed])
    values = model.proj_out.weight, model.proj_in.weight, calibration.timestep, calibration.noisy[0]
    return tensors_digest(word, (value.float() for value in values))
