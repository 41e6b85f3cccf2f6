"""Train a profile's VAE, judge or teacher and publish it as an artefact of the run: `mobivid train vae` and so on.

`--profile scratch` makes the shipped ones again. Interrupted, the VAE and the teacher resume; the judge takes minutes.
`--data FOLDER` takes your own videos instead, for the teacher captioned ones (`data.captioned`). The teacher trains on
several GPUs under `accelerate launch -m mobivid_core`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from mobivid_core import artifacts
from mobivid_core.command import CommandParser, at_least_one, device_name, given_path, run_command
from mobivid_core.data.folder import folder_pool
from mobivid_core.data.latents import captioned_latents, latent_dataset
from mobivid_core.data.pool import to_float, training_pool
from mobivid_core.measure.reconstruction import psnr, reconstruct
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile, add_profile, get_profile
from mobivid_core.train import precision
from mobivid_core.train.distributed import processes
from mobivid_core.train.judge import publish_judge
from mobivid_core.train.speed import SpeedPlan
from mobivid_core.train.state import LOG, folder_for, write_log
from mobivid_core.train.teacher import train_teacher
from mobivid_core.train.vae import train_vae


def publish_vae(profile: Profile, *, seed: int = 0, with_log: bool = False, **how: object) -> MobiVidVAE:
    """Train the main VAE of a profile, `how` as for `train_vae`; interrupted, it resumes."""
    folder = runs_dir(profile.name) / "training" / "vae"
    vae, run = train_vae(training_pool(profile), folder=folder, seed=seed, **_vae_sizes(profile), **how)
    with artifacts.publish("vae", profile.name) as place:
        artifacts.save_model(vae.cpu(), place)
        if with_log:
            write_log(place / LOG, run.log)
    return vae


def publish_teacher(
    profile: Profile,
    vae: MobiVidVAE,
    *,
    seed: int = 0,
    on_log: Callable[[dict[str, float]], None] | None = None,  # e.g. a `LossPlot`
    **how: object,  # as for `train_teacher`
) -> MobiVidTransformer3DModel:
    """Train the teacher of a profile on one VAE's latents; interrupted, it resumes."""
    run_folder = runs_dir(profile.name) if profile.meaningful else None
    with processes().main_process_first():  # it fills the cache for the others
        data = latent_dataset(
            vae, split="train", count=profile.train_clips, frames=profile.frames, size=profile.size,
            cache=run_folder and run_folder / "latents",
        )  # fmt: skip
    folder = run_folder and run_folder / "training" / "teacher"
    teacher, run = train_teacher(data, folder=folder, seed=seed, on_log=on_log, **_teacher_sizes(profile, vae), **how)
    if processes().is_main_process:
        with artifacts.publish("teacher", profile.name) as place:
            artifacts.save_model(teacher, place)
            write_log(place / LOG, run.log)
    return teacher


def _vae_sizes(profile: Profile) -> dict[str, object]:
    return {
        "ratio": profile.vae_ratio, "channels": profile.vae_channels, "width": profile.vae_width,
        "encoder_width": profile.vae_encoder_width, "steps": profile.vae_steps,
    }  # fmt: skip


def _teacher_sizes(profile: Profile, vae: MobiVidVAE) -> dict[str, object]:
    sizes = replace(profile.server, in_channels=vae.config.latent_channels)
    return {"sizes": sizes, "steps": profile.teacher_steps, "batch": profile.batch}


def main(arguments: Sequence[str]) -> int:
    """Command line: the first word says what to train; returns the exit status."""
    name, *options = arguments
    work = _COMMANDS[name]
    parser = CommandParser(f"train {name}", work.__doc__)
    parser.set_defaults(name=name)
    add_profile(parser, "scratch")
    parser.add_argument("--steps", type=at_least_one, help="instead of the profile's")
    precision.add_argument(parser)
    if name == "judge":
        parser.add_seed()
        parser.add_out("folder to write (default: the run's stage `judge`)")
    if name == "vae":
        parser.add_argument("--data", type=given_path, help="a folder of your own videos instead of the film")
        parser.add_argument("--device", type=device_name, help="instead of the profile's")
    if name == "teacher":
        text = "your own captioned videos: captions.csv beside them, or shards"
        parser.add_argument("--data", type=given_path, help=text)
        parser.add_argument("--batch", type=at_least_one, help="clips a step, instead of the profile's")
        parser.add_argument("--clips", type=at_least_one, help="training clips, instead of the profile's")
        parser.add_argument("--fast", action="store_true", help="every speed-up that this machine has")
        parser.add_argument("--compile", action="store_true", help="compile the model (needs a C++ compiler)")
        parser.add_argument("--accumulate", type=at_least_one, default=1, help="micro-batches, for less memory")
        parser.add_argument("--shard", action="store_true", help="shard the model over all processes (FSDP2)")
    return run_command(work, parser, options)


def _vae(options: argparse.Namespace) -> None:
    """Train the main VAE of a profile and publish it."""
    profile = _profile(options)
    bf16 = precision.asked(options.bf16, precision.CONVOLUTIONAL)
    how = {"bf16": bf16, "device": options.device or profile.device}
    if not options.data:
        publish_vae(profile, with_log=True, **how)
        return
    own = folder_pool(options.data, frames=profile.frames, size=profile.size)
    print(own.report)
    stage = runs_dir(profile.name) / "training" / "vae-own"
    folder = folder_for(stage, own.train)  # each data set has a state and a model of its own
    vae, _ = train_vae(own.train, folder=folder, **_vae_sizes(profile), **how)
    vae, test = vae.cpu(), to_float(own.test)
    print(f"PSNR on {len(test)} held-out clips: {psnr(reconstruct(vae, test), test).mean():.2f} dB")
    _save_own(vae, folder, stage)


def _judge(options: argparse.Namespace) -> None:
    """Train the judge of a profile and publish it."""
    with precision.whole_training("cpu", precision.asked(options.bf16, precision.CONVOLUTIONAL)):
        publish_judge(
            _profile(options), seed=options.seed, folder=options.out,
            progress=lambda row: print("  ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True),
        )  # fmt: skip


def _teacher(options: argparse.Namespace) -> None:
    """Train the teacher of a profile and publish it."""
    plan = SpeedPlan.started() if options.fast else None
    with processes().main_process_first():  # it times, the others read what it found
        bf16 = precision.asked(options.bf16, precision.DIT, processes().device.type)
    profile = _profile(options)
    profile = replace(profile, batch=options.batch or profile.batch, train_clips=options.clips or profile.train_clips)
    artifact = artifacts.find("vae", profile.name)
    processes().print(artifacts.describe(artifact), *([plan] if plan else []), sep="\n")
    vae = artifacts.load_model(MobiVidVAE, artifact.path)
    compiled = options.compile or bool(plan and plan.compiled)
    how = {"bf16": bf16, "compiled": compiled, "accumulate": options.accumulate, "sharded": options.shard}
    if not options.data:
        publish_teacher(profile, vae, **how)
        return
    with processes().main_process_first():
        data, report = captioned_latents(vae, options.data, frames=profile.frames, size=profile.size)
        processes().print(report)
    stage = runs_dir(profile.name) / "training" / "teacher-own"
    folder = folder_for(stage, data.latents, data.text, data.caption_of)  # the latents also tell VAEs apart
    model, _ = train_teacher(data, folder=folder, **_teacher_sizes(profile, vae), **how)
    if processes().is_main_process:
        _save_own(model, folder, stage)


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {"vae": _vae, "judge": _judge, "teacher": _teacher}


def _profile(options: argparse.Namespace) -> Profile:
    profile = get_profile(options.profile)
    return replace(profile, **{f"{options.name}_steps": options.steps}) if options.steps else profile


def _save_own(model: nn.Module, folder: Path, stage: Path) -> None:
    """Keep a model of the user's own data: the notebooks go on with the profile's."""
    for place in (folder, stage):
        artifacts.save_model(model, place / "model")
    print(f"saved in {folder / 'model'}; the latest of all data is also in {stage / 'model'}")
