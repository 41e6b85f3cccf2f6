"""Check a pipeline call's inputs and bring them into one form: prompts, states, noise, sizes; and what it returns.

Paper: the inputs of inference; the names are those of diffusers' video pipelines. A caption and its states are
interchangeable: `Condition` carries states and mask through either way.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance, as_guidance

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel

    from mobivid_core.models.dit import MobiVidTransformer3DModel
    from mobivid_core.models.vae import MobiVidVAE

OutputType = Literal["np", "pt", "pil", "latent"]
#: Tensors that a callback may ask for and replace.
CALLBACK_TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds")


def whole_number(name: str, value: object) -> int:
    """An integer (of Python or numpy) of at least 1, or a ParameterError."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ParameterError(f"{name} must be a whole number, at least 1; got {value!r}")
    return number


def as_prompts(prompt: object, count: int | None = None, name: str = "prompt") -> list[str]:
    """A list of prompts, one string repeated to `count`; a ParameterError for anything else or another length."""
    prompts = [prompt] * (count or 1) if isinstance(prompt, str) else prompt
    captions = isinstance(prompts, (list, tuple)) and len(prompts) > 0 and all(isinstance(p, str) for p in prompts)
    if not captions or len(prompts) != (count or len(prompts)):
        wanted = (
            "a caption or a non-empty list of captions" if count is None else f"one caption or {count}, one a prompt"
        )
        raise ParameterError(f"{name}: expected {wanted}, got {prompt!r}")
    return list(prompts)


def as_condition(name: str, embeds: object, mask: object, width: int, like: Tensor, count: int | None) -> Condition:
    """States (B, L, D = `width`) that the caller encoded, on the device and in the type of `like`, or a ParameterError.

    (1, L, D) serves all of `count`. Without a mask, the rows that are not all zero count, as `encode_prompt` leaves
    padding.
    """
    if not isinstance(embeds, Tensor) or embeds.ndim != 3 or embeds.shape[2] != width or not embeds.shape[0]:
        got = tuple(embeds.shape) if isinstance(embeds, Tensor) else type(embeds).__name__
        raise ParameterError(f"{name} must be a tensor of states (prompts, tokens, {width}), got {got}")
    mask = embeds.ne(0).any(-1) if mask is None else mask
    if not isinstance(mask, Tensor) or mask.shape != embeds.shape[:2]:
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ParameterError(f"the mask of {name} must be {tuple(embeds.shape[:2])}, one value a token; got {got}")
    made = Condition(embeds.to(like), mask.to(like.device).bool())
    if count is None or len(made) == count:
        return made
    if len(made) == 1:
        return made.repeated(count)
    raise ParameterError(f"{name} holds {len(made)} prompts; expected one or {count}, one a prompt")


def check_exclusive(prompt: object, embeds: object, mask: object, name: str, needed: bool) -> None:
    """Raise ParameterError for a prompt given twice, a mask without states, or (where one is needed) none at all."""
    if prompt is not None and embeds is not None:
        raise ParameterError(f"give {name} or {name}_embeds, not both")
    if needed and prompt is None and embeds is None:
        raise ParameterError(f"give {name} or {name}_embeds: a caption or a non-empty list of captions, or its states")
    if mask is not None and embeds is None:
        raise ParameterError(f"{name}_attention_mask belongs to {name}_embeds, which is not given")


def asked_guidance(guidance: float | Guidance) -> Guidance:
    """Guidance as a call means it: a plain 0 is "none", as everywhere in diffusers, and so is 1."""
    made = as_guidance(guidance)
    return Guidance(1.0) if not isinstance(guidance, Guidance) and made.scale == 0 else made


def check_generator(generator: object, clips: int) -> None:
    """Raise ParameterError for what is no generator, and for lists of another length than the batch."""
    given = generator if isinstance(generator, (list, tuple)) else [generator]
    wrong = next((g for g in given if not isinstance(g, torch.Generator)), None)
    if generator is not None and wrong is not None:
        raise ParameterError(
            f"generator must be a torch.Generator or a list of them, got {wrong!r}; "
            "a seed n is torch.Generator().manual_seed(n)"
        )
    if isinstance(generator, (list, tuple)) and len(generator) != clips:
        raise ParameterError(f"{len(generator)} generators for {clips} clips; give one generator, or one a clip")


def start_noise(
    shape: tuple[int, ...], generator: object, latents: Tensor | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The noise to start from, drawn or the caller's; a ParameterError if its shape or the generator does not fit."""
    check_generator(generator, shape[0])
    if latents is None:
        generator = list(generator) if isinstance(generator, tuple) else generator
        try:
            return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        except ValueError as error:  # a generator of a GPU for a pipeline on the processor
            raise ParameterError(f"generator: {error}") from error
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ParameterError(f"latents must be {shape} for this many clips and this size, got {got}")
    return latents.to(device=device, dtype=dtype)


def check_callback_tensors(names: object) -> list[str]:
    """The names of tensors that a callback wants; a ParameterError if one is not offered."""
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in CALLBACK_TENSORS]
    if unknown:
        raise ParameterError(
            f"callback_on_step_end_tensor_inputs has {', '.join(map(repr, unknown))}; "
            f"a callback may ask for {', '.join(CALLBACK_TENSORS)}"
        )
    return names


def check_fit(vae: MobiVidVAE, transformer: MobiVidTransformer3DModel, text_encoder: PreTrainedModel) -> None:
    """Raise ParameterError for parts that were not trained together: latent channels or widths of states differ."""
    channels, wanted = vae.config.latent_channels, transformer.config.in_channels
    if channels != wanted:
        raise ParameterError(
            f"the VAE has {channels} latent channels, the transformer expects {wanted}; load a matching pair"
        )
    width, wanted = text_encoder.config.hidden_size, transformer.config.text_dim
    if width != wanted:
        raise ParameterError(
            f"the text encoder's states are {width} wide, the transformer expects {wanted}; load a matching pair"
        )


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
    return VideoProcessor().postprocess_video(clips.float(), output_type)
