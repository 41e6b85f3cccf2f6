"""Train a profile's VAE or teacher and publish it as an artefact of the run, for profiles that ship neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mobivid_core import artifacts
from mobivid_core.data.latents import latent_dataset
from mobivid_core.data.pool import training_pool
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile
from mobivid_core.train.state import write_log
from mobivid_core.train.teacher import train_teacher
from mobivid_core.train.vae import train_vae


def publish_vae(profile: Profile, *, seed: int = 0) -> MobiVidVAE:
    """Train the main VAE of a profile; interrupted, it resumes."""
    vae, _ = train_vae(
        training_pool(profile), ratio=profile.vae_ratio, channels=profile.vae_channels, seed=seed,
        width=profile.vae_width, encoder_width=profile.vae_encoder_width, steps=profile.vae_steps,
        folder=runs_dir(profile.name) / "training" / "vae",
    )  # fmt: skip
    with artifacts.publish("vae", profile.name) as place:
        artifacts.save_model(vae, place)
    return vae


def publish_teacher(
    profile: Profile, vae: MobiVidVAE, *, seed: int = 0, on_log: Callable[[dict[str, float]], None] | None = None
) -> MobiVidTransformer3DModel:
    """Train the teacher of a profile on one VAE's latents; interrupted, it resumes. `on_log`: e.g. a `LossPlot`."""
    folder = runs_dir(profile.name) / "training" / "teacher" if profile.meaningful else None
    data = latent_dataset(
        vae, split="train", count=profile.train_clips, frames=profile.frames, size=profile.size,
        cache=folder and runs_dir(profile.name) / "latents",
    )  # fmt: skip
    sizes = replace(profile.server, in_channels=vae.config.latent_channels)
    teacher, run = train_teacher(
        data, sizes, steps=profile.teacher_steps, batch=profile.batch, folder=folder, seed=seed, on_log=on_log
    )
    with artifacts.publish("teacher", profile.name) as place:
        artifacts.save_model(teacher, place)
        write_log(place / "log.csv", run.log)
    return teacher
