"""Trains the text-conditioned flow-matching teacher on encoded captioned clips.

`mobivid train teacher --profile scratch --fast` makes the shipped one again; interrupted, it resumes.
`--data FOLDER` takes your own captioned videos (`mobivid_core.data.captioned`); under `accelerate launch -m` the same
command runs on several GPUs.
Paper: the 2 B server DiT, trained on data that are not public; here a miniature with its proportions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mobivid_core.command import CommandParser, at_least_one, given_path, run_command
from mobivid_core.data.latents import LatentDataset
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import flow_batch, flow_error
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.profiles import add_profile
from mobivid_core.train.distributed import SplitLoss, processes, whole
from mobivid_core.train.loop import TrainResult, TrainSettings, train
from mobivid_core.train.muon import DIT_NOT
from mobivid_core.train.speed import SpeedPlan, compile_blocks, relaunch


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: train the teacher of a profile and publish it; returns the exit status."""
    from mobivid_core.train.precision import add_argument

    parser = CommandParser("train teacher", main.__doc__)
    add_profile(parser, "scratch")
    parser.add_argument(
        "--data", type=given_path, help="your own captioned videos: captions.csv beside them, or shards"
    )
    parser.add_argument("--steps", type=at_least_one, help="instead of the profile's")
    parser.add_argument("--batch", type=at_least_one, help="clips a step, instead of the profile's")
    parser.add_argument("--clips", type=at_least_one, help="training clips, instead of the profile's")
    parser.add_argument("--fast", action="store_true", help="every speed-up that this machine has")
    add_argument(parser)
    parser.add_argument("--compile", action="store_true", help="compile the model (needs a C++ compiler)")
    parser.add_argument("--accumulate", type=at_least_one, default=1, help="micro-batches, for less memory")
    parser.add_argument("--shard", action="store_true", help="shard the model over all processes (FSDP2)")
    return run_command(_train_and_publish, parser, arguments)


def _train_and_publish(arguments: argparse.Namespace) -> None:
    from mobivid_core.artifacts import describe, find, load_model, publish, save_model
    from mobivid_core.data.latents import captioned_latents, latent_dataset
    from mobivid_core.models.vae import MobiVidVAE
    from mobivid_core.paths import runs_dir
    from mobivid_core.profiles import get_profile
    from mobivid_core.train.precision import DIT, asked
    from mobivid_core.train.state import folder_for, save_own

    plan = None
    if arguments.fast:
        relaunch()
        plan = SpeedPlan.detect()
        plan.apply()
    with processes().main_process_first():  # it times, the others read what it found
        bf16 = asked(arguments.bf16, DIT, processes().device.type)
    profile = get_profile(arguments.profile)
    artifact = find("vae", profile.name)
    processes().print(describe(artifact), *([plan] if plan else []), sep="\n")
    folder = stage = runs_dir(profile.name) / "training" / ("teacher" if not arguments.data else "teacher-own")
    vae, clip = load_model(MobiVidVAE, artifact.path), {"frames": profile.frames, "size": profile.size}
    with processes().main_process_first():  # it fills the cache for the others
        if arguments.data:
            data, report = captioned_latents(vae, arguments.data, **clip)
            processes().print(report)
        else:
            count, cache = arguments.clips or profile.train_clips, runs_dir(profile.name) / "latents"
            data = latent_dataset(vae, split="train", count=count, cache=cache, **clip)
    if arguments.data:  # each data set has a state and a model of its own; the latents also tell VAEs apart
        folder = folder_for(stage, data.latents, data.text, data.caption_of)
    model, _ = train_teacher(
        data, profile.server, steps=arguments.steps or profile.teacher_steps, batch=arguments.batch or profile.batch,
        folder=folder, bf16=bf16, compiled=arguments.compile or bool(plan and plan.compiled),
        accumulate=arguments.accumulate, sharded=arguments.shard,
    )  # fmt: skip
    if processes().is_main_process:
        if arguments.data:
            save_own(model, folder, stage)
            return
        with publish("teacher", profile.name) as place:
            save_model(model, place)
            (place / "log.csv").write_bytes((folder / "log.csv").read_bytes())
