"""A GPU run's place and its first stages: each reads and writes folders, ends when its time is spent, and resumes.

Paper: its models take many GPUs for weeks; this is the miniature's whole chain in minutes of one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from mobivid_core.artifacts import load_model, save_model
from mobivid_core.data.latents import LatentDataset, latent_dataset
from mobivid_core.data.pool import training_pool
from mobivid_core.data.render import render_clips
from mobivid_core.files import write_json
from mobivid_core.measure.borders import border_ratio, sharpness
from mobivid_core.measure.reconstruction import psnr, reconstruct
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import Profile
from mobivid_core.train.judge import publish_judge
from mobivid_core.train.loop import TrainResult
from mobivid_core.train.sharpen import sharpen_decoder
from mobivid_core.train.teacher import train_teacher
from mobivid_core.train.vae import train_vae

#: A number of steps that no time slice reaches: the seconds end a stage.
ENDLESS = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where a GPU run lives, and at what sizes."""

    root: Path
    profile: Profile
    device: torch.device
    clips: int = 98_304  # captioned, that the diffusion model trains on
    trajectories: int = 65_536  # of the teacher, that the students train on
    batch: int = 768  # clips of a step of the teacher

    @property
    def fast(self) -> bool:
        """Whether compiling and bfloat16 pay: on a GPU."""
        return self.device.type != "cpu"

    @property
    def chunk(self) -> int:
        """Captions walked together along a trajectory."""
        return 2048 if self.fast else 8

    @property
    def teacher_steps(self) -> int:
        """Solver steps of the teacher's trajectories."""
        return 16 if self.fast else 4

    def model(self, name: str) -> MobiVidTransformer3DModel:
        """A saved transformer of this run."""
        return load_model(MobiVidTransformer3DModel, self.root / name).to(self.device)

    def vae(self, name: str = "vae") -> MobiVidVAE:
        """A saved VAE of this run."""
        return load_model(MobiVidVAE, self.root / name).to(self.device).eval()

    def dataset(self) -> LatentDataset:
        """The encoded clips of the stage `latents`, on the device."""
        return LatentDataset(labels=[], **load_file(self.root / "latents.safetensors", device=str(self.device)))

    def budget(self, name: str, seconds: float) -> dict:
        """Settings of a training that goes on for some seconds from where it was left."""
        folder = self.root / "states" / name
        return {"steps": ENDLESS, "seconds": seconds, "folder": folder, "bf16": self.fast, "progress": False}

    def log(self, name: str, rows: list[dict]) -> None:
        """Keep a stage's log."""
        pd.DataFrame(rows).to_csv(self.root / name / "log.csv", index=False, lineterminator="\n")


def judge(place: Place, _seconds: float) -> None:
    """Train the judge: by steps, since it has to be the same whatever the machine."""
    publish_judge(place.profile, folder=place.root / "judge", device=place.device, progress=print)


def codec(place: Place, seconds: float) -> None:
    """Train the VAE on film and captioned clips that lie on the device."""
    p = place.profile
    vae, result = train_vae(
        training_pool(p, 8192 if place.fast else 24, place.device), ratio=p.vae_ratio, channels=p.vae_channels,
        width=p.vae_width, encoder_width=p.vae_encoder_width, device=place.device, batch=32 if place.fast else 2,
        crop=p.size, **place.budget("vae", seconds),
    )  # fmt: skip
    _keep_vae(place, "vae", vae, result)


def sharpen(place: Place, seconds: float) -> None:
    """Make the decoder crisp; the encoder stays, so latents made before stay valid."""
    pool = training_pool(place.profile, 4096 if place.fast else 8, place.device)
    budget = place.budget("vae-sharp", seconds) | ({} if place.fast else {"steps": 3})
    sizes = {"batch": 16 if place.fast else 2, "crop": place.profile.size}
    vae, result = sharpen_decoder(place.vae(), pool, device=place.device, **sizes, **budget)
    _keep_vae(place, "vae-sharp", vae, result)


def _keep_vae(place: Place, name: str, vae: MobiVidVAE, result: TrainResult) -> None:
    """Save a VAE in half precision, with its log, PSNR, borders and sharpness on clips of `val`."""
    save_model(vae.cpu(), place.root / name, torch.float16)
    place.log(name, result.log)
    clips = render_clips("val", range(64 if place.fast else 4), size=place.profile.size, device=place.device).clips
    out = reconstruct(place.vae(name), clips, batch=16)
    measured = {
        "psnr_db": float(psnr(out, clips).mean()),
        "borders": float(border_ratio(out).mean()),
        "real_borders": float(border_ratio(clips).mean()),
        "sharpness": float(sharpness(out).mean() / sharpness(clips).mean()),
    }
    print(f"{name}: {result.log[-1]} {result.ended}", json.dumps(measured), flush=True)
    write_json(place.root / f"{name}.json", measured)


def latents(place: Place, _seconds: float) -> None:
    """Render, encode and caption clips."""
    sizes = {"count": place.clips, "frames": place.profile.frames, "size": place.profile.size}
    data = latent_dataset(place.vae(), split="train", **sizes, progress=False)
    tensors = {name: value for name, value in vars(data).items() if name != "labels"}
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, place.root / "latents.safetensors")
    print(f"latents: {tuple(data.latents.shape)}, {len(data.text)} captions", flush=True)


def teacher(place: Place, seconds: float) -> None:
    """Train the teacher."""
    sizes = replace(place.profile.server, in_channels=place.vae().config.latent_channels)
    budget = place.budget("teacher", seconds)
    model, result = train_teacher(place.dataset(), sizes, batch=place.batch, compiled=place.fast, **budget)
    save_model(model.cpu(), place.root / "teacher", torch.float16)
    place.log("teacher", result.log)
    print(f"teacher: {result.log[-1]}", flush=True)
