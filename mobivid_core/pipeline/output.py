"""What the pipeline returns: clips as arrays, tensors, images or latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from torch import Tensor

from mobivid_core.errors import ParameterError

if TYPE_CHECKING:
    from PIL.Image import Image

OutputType = Literal["np", "pt", "pil", "latent"]


@dataclass
class MobiVidPipelineOutput(BaseOutput):
    """Result of a call."""

    # "np": (B, T, H, W, 3) float32 in [0, 1]; "pt": (B, T, 3, H, W) in [0, 1]; "pil": B lists of T images; "latent":
    # (B, C, t, h, w) normalised latents
    frames: np.ndarray | Tensor | list[list[Image]]


def check_output_type(output_type: object) -> None:
    """Raise ParameterError for an unknown kind of output."""
    if output_type not in get_args(OutputType):
        known = ", ".join(get_args(OutputType))
        raise ParameterError(f"unknown output_type {output_type!r}; use one of {known}")


def as_frames(clips: Tensor, output_type: OutputType) -> np.ndarray | Tensor | list[list[Image]]:
    """Clips (B, 3, T, H, W) in [-1, 1] as frames of the asked type."""
    frames = ((clips.float() + 1) / 2).transpose(1, 2)
    if output_type == "pt":
        return frames
    array = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
    return array if output_type == "np" else [VaeImageProcessor.numpy_to_pil(clip) for clip in array]
