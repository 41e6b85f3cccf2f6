"""Evaluations that are dear enough to keep: notebooks 02 and 05 both judge the teacher's full sampler.

A file under `runs/<profile>/evaluation`, named by a hash of all it depends on: weights, sampler, captions, the code
that measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.measure.measures import ClipMeasures
from mobivid_core.measure.reference import evaluation_folder, evaluation_key
from mobivid_core.profiles import Profile

#: Evaluations of fewer clips are quickly made again.
FROM_CLIPS = 128
#: Measured clips, the first of them to look at, and seconds a clip of sampling and of decoding.
Measured = tuple[ClipMeasures, Tensor, float, float]


def evaluation_file(models: Sequence[nn.Module], settings: tuple, profile: Profile, n: int) -> Path | None:
    """Where an evaluation of `n` clips is kept; None where it is not worth a file.

    Args:
        models: Everything with weights that it depends on.
        settings: Whatever else it depends on, as text-like values.
        profile: Sizes.
        n: Clips.
    """
    if n < FROM_CLIPS:
        return None
    return evaluation_folder(profile) / f"generated-{evaluation_key(models, (n, *settings), profile)}.safetensors"


def read_measured(file: Path | None, independent: bool) -> Measured | None:
    """What `write_measured` left; None without such a file, or where it lacks what is asked for or measured now.

    Args:
        file: From `evaluation_file`.
        independent: Whether features of the second network are wanted.
    """
    stored = read_tensors(file)
    if stored is None or not {"seconds", "clips"} <= stored.keys():
        return None
    seconds, clips = stored.pop("seconds").tolist(), stored.pop("clips")
    measures = ClipMeasures.from_columns(stored)
    if measures is None or (independent and measures.image_features is None):
        return None
    return measures, clips, *seconds


def write_measured(file: Path | None, measured: Measured) -> None:
    """Keep an evaluation, whole or not at all."""
    if file is None:
        return
    measures, clips, *seconds = measured
    columns = {k: v.contiguous() for k, v in measures.columns().items() if v is not None}
    write_bytes(
        file, save({**columns, "clips": clips.contiguous(), "seconds": torch.tensor(seconds, dtype=torch.float64)})
    )
