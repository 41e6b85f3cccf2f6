"""Sizes and budgets of each profile: `smoke`, `laptop`, `scratch`, `gpu`, `paper`.

Every notebook takes its sizes from here and from nowhere else, so that a profile means the same
thing in every stage.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass

from mobivid_core.errors import ProfileError
from mobivid_core.flow.guidance import Guidance
from mobivid_core.models.config import MINI_MOBILE, MINI_SERVER, SMOKE_MOBILE, SMOKE_SERVER, DiTConfig


@dataclass(frozen=True)
class Profile:
    """Sizes and budgets of one profile."""

    name: str
    meaningful: bool = True  # False where the numbers only prove that the code runs
    from_shipped: bool = True  # start from the shipped VAE, judge and teacher instead of training them
    paper_scale: bool = False  # also build and convert the paper-scale model (minutes and gigabytes)
    device: str = "cpu"  # torch device that trains
    frames: int = 17  # frames of a clip, 1 + 8k
    size: int = 128  # height and width of a clip in pixels
    vae_ratio: tuple[int, int, int] = (8, 32, 32)  # VAE compression, time x height x width
    vae_channels: int = 32  # latent channels of the main VAE
    vae_width: int = 160  # channel width of the VAE's decoding net
    vae_encoder_width: int = 0  # channel width of the VAE's encoding net; 0 leaves the code linear
    vae_steps: int = 2500  # training steps of the main VAE
    sweep_steps: int = 45  # training steps of each VAE in the ratio sweep
    judge_steps: int = 900  # training steps of the judge
    server: DiTConfig = MINI_SERVER  # sizes of the teacher
    mobile: DiTConfig = MINI_MOBILE  # sizes of the student at the paper's cut
    train_clips: int = 4096  # captioned clips encoded once for DiT training
    batch: int = 32  # batch size of DiT training
    teacher_steps: int = 20_000  # training steps of the teacher
    calibration_clips: int = 128  # clips on which sensitivity is measured
    recovery_steps: int = 100  # KD recovery steps of a pruned student
    arm_steps: int = 16  # KD recovery steps of each arm that is only compared
    distill_steps: int = 60  # generator updates of step distillation
    eval_clips: int = 256  # clips generated for each row of a quality table
    teacher_sampling_steps: int = 40  # steps of the guided teacher
    # Guidance of the teacher: the best of those that guide every step, on 256 validation captions
    guidance: float | Guidance = Guidance(4.5, rescale=0.7)
    sweep_width: int = 32  # channel width of the VAEs in the ratio sweep
    reference_steps: int = 45  # training steps of our VAE and of the LTX-style reference, side by side
    denoiser_tflop: float = 0.15  # training compute of each denoiser when one is trained per VAE, 10^12 operations
    denoiser_clips: int = 256  # captioned clips that those denoisers train on


_ALL = (
    Profile(
        "smoke",
        meaningful=False,
        from_shipped=False,
        size=64,
        vae_channels=16,
        vae_width=16,
        vae_encoder_width=10,
        vae_steps=6,
        sweep_steps=2,
        judge_steps=6,
        server=SMOKE_SERVER,
        mobile=SMOKE_MOBILE,
        train_clips=32,
        batch=8,
        teacher_steps=10,
        calibration_clips=8,
        recovery_steps=4,
        arm_steps=2,
        distill_steps=4,
        eval_clips=8,
        teacher_sampling_steps=6,
        sweep_width=8,
        reference_steps=2,
        denoiser_tflop=0.002,
        denoiser_clips=16,
    ),
    Profile("laptop"),
    Profile("scratch", from_shipped=False, train_clips=24_576),
    Profile(
        "gpu",
        from_shipped=False,
        device="cuda",
        vae_encoder_width=96,
        train_clips=65_536,
        batch=128,
        vae_steps=20_000,
        teacher_steps=60_000,
        recovery_steps=5000,
        arm_steps=500,
        distill_steps=5000,
        sweep_steps=2000,
        reference_steps=2000,
        denoiser_tflop=100.0,
        denoiser_clips=4096,
    ),
    Profile("paper", paper_scale=True),
)
PROFILES = {profile.name: profile for profile in _ALL}


def get_profile(name: str) -> Profile:
    """Look a profile up by name; a ProfileError names those that exist."""
    if name not in PROFILES:
        raise ProfileError(f"unknown profile {name!r}; the profiles are {', '.join(PROFILES)}")
    return PROFILES[name]


def add_profile(parser: ArgumentParser, default: str = "laptop") -> None:
    """Add `--profile` to a subcommand's parser."""
    text = f"sizes and budgets: {', '.join(PROFILES)} (default: {default})"
    parser.add_argument("--profile", default=default, type=_named, metavar="NAME", help=text)


def _named(name: str) -> str:
    try:
        return get_profile(name).name
    except ProfileError as error:
        raise ArgumentTypeError(str(error)) from error
