"""Trains the text-conditioned flow-matching teacher on encoded captioned clips.

Paper: the 2 B server DiT, trained on data that are not public; here a miniature with its proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.data.latents import LatentDataset
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import flow_batch, flow_error
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.train.distributed import SplitLoss, whole
from mobivid_core.train.loop import TrainResult, TrainSettings, train
from mobivid_core.train.muon import DIT_NOT
from mobivid_core.train.speed import compile_blocks


def train_teacher(
    data: LatentDataset,  # encoded clips and captions
    sizes: DiTConfig,  # widths of the model
    *,
    steps: int,  # optimiser steps
    batch: int,  # clips a step
    seconds: float | None = None,  # ends the training earlier
    folder: Path | None = None,  # where to keep the training state; None keeps none
    seed: int = 0,  # seed of initial weights and of all draws
    learning_rate: float = 1.5e-3,  # peak rate of AdamW, which trains vectors and the layers at both ends
    bf16: bool = False,  # compute in bfloat16 (weights stay float32): see `precision` for where that is faster
    compiled: bool = False,  # compile the blocks with torch.compile: worth its minute from about a thousand steps
    accumulate: int = 1,  # micro-batches that each process splits its share of a batch into, for less memory
    sharded: bool = False,  # shard the model over all processes (FSDP2); AdamW then trains all of it
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,  # called with each row of the log, e.g. a `LossPlot`
) -> tuple[MobiVidTransformer3DModel, TrainResult]:
    """Train a teacher from random weights on encoded clips and captions: with averaged weights, and the log."""
    torch.manual_seed(seed)
    model = MobiVidTransformer3DModel.from_sizes(sizes)
    if compiled:
        compile_blocks(model)

    def draw(step: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        latents, text, mask = data.draw(batch, generator)
        captions = Condition(text, mask, data.null_text, data.null_mask)
        return flow_batch(latents, captions, generator)

    loss = SplitLoss(draw, lambda *part: flow_error(model, *part))
    settings = TrainSettings(
        steps, seconds=seconds, warmup=min(300, steps // 10 + 1), hold=0.7, learning_rate=learning_rate,
        muon=0.0 if sharded else 3e-3, muon_not=DIT_NOT, ema=0.999 if steps >= 2000 else 0.99, seed=seed,
        log_every=50 if steps >= 1000 else 1, save_every_s=120.0, bf16=bf16, accumulate=accumulate, sharded=sharded,
    )  # fmt: skip
    result = train(model, loss, settings, folder, title="teacher", progress=progress, on_log=on_log)
    if not sharded:
        return result.averaged, result
    gathered = MobiVidTransformer3DModel.from_sizes(sizes)
    gathered.load_state_dict({k: whole(v).cpu() for k, v in result.averaged.state_dict().items()})
    return gathered.eval(), result
