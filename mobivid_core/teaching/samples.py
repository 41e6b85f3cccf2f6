"""A handful of calibration samples for exercises: the shipped teacher on a few encoded clips, in seconds."""

from __future__ import annotations

from mobivid_core.artifacts import find, load_model
from mobivid_core.compress.calibration import CalibrationSet, calibration_from
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile
from mobivid_core.training.latents import latent_dataset


def teacher_and_samples(clips: int = 8, samples: int = 8, seed: int = 0) -> tuple[MobiVidTransformer3DModel, CalibrationSet]:
    """The teacher of the default profile, frozen, and noisy latents of training clips with their captions.

    Args:
        clips: Clips that are rendered and encoded.
        samples: Samples drawn from them, each with noise of its own.
        seed: Seed of noise and noise levels.
    """
    profile = get_profile("laptop")
    vae = load_model(MobiVidVAE, find("vae", profile.name).path)
    teacher = load_model(MobiVidTransformer3DModel, find("teacher", profile.name).path).eval().requires_grad_(False)
    data = latent_dataset(vae, split="train", count=clips, frames=profile.frames, size=profile.size, progress=False)
    return teacher, calibration_from(data, samples=samples, seed=seed)
