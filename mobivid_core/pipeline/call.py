"""Check a pipeline call's inputs and bring them into one form: prompts, states, noise; and what it returns.

Paper: the inputs of inference; the names are those of diffusers' video pipelines. A caption and its states are
interchangeable: `Condition` carries states and mask through either way.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
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


@dataclass
class MobiVidPipelineOutput(BaseOutput):
    """Result of a call."""

    # "np": (B, T, H, W, 3) float32 in [0, 1]; "pt": (B, T, 3, H, W) in [0, 1]; "pil": B lists of T images; "latent":
    # (B, C, t, h, w) normalised latents
    frames: np.ndarray | Tensor | list[list[Image]]


def whole_number(name: str, value: object) -> int:
    """An integer (of Python or numpy) of at least 1, or a ParameterError."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ParameterError(f"{name} must be a whole number, at least 1; got {value!r}")
    return number


def shape_of(value: object) -> object:
    """What an error says of a value that should be a tensor: its shape, or its type."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def as_prompts(prompt: object, count: int | None = None, name: str = "prompt") -> list[str]:
    """A list of prompts, one string repeated to `count`; a ParameterError for anything else or another length."""
    prompts = [prompt] * (count or 1) if isinstance(prompt, str) else prompt
    captions = isinstance(prompts, (list, tuple)) and len(prompts) > 0 and all(isinstance(p, str) for p in prompts)
    if not captions or len(prompts) != (count or len(prompts)):
        wanted = f"one caption or {count}, one a prompt" if count else "a caption or a non-empty list of captions"
        raise ParameterError(f"{name}: expected {wanted}, got {prompt!r}")
    return list(prompts)


def as_condition(name: str, embeds: object, mask: object, width: int, like: Tensor, count: int | None) -> Condition:
    """States (B, L, D = `width`) that the caller encoded, on the device and in the type of `like`, or a ParameterError.

    (1, L, D) serves all of `count`. Without a mask, the rows that are not all zero count, as `encode_prompt` leaves
    padding.
    """
    if not isinstance(embeds, Tensor) or embeds.ndim != 3 or embeds.shape[2] != width or not embeds.shape[0]:
        raise ParameterError(f"{name} must be a tensor of states (prompts, tokens, {width}), got {shape_of(embeds)}")
    mask, wanted = embeds.ne(0).any(-1) if mask is None else mask, tuple(embeds.shape[:2])
    if shape_of(mask) != wanted:
        raise ParameterError(f"the mask of {name} must be {wanted}, one value a token; got {shape_of(mask)}")
    made = Condition(embeds.to(like), mask.to(like.device).bool())
    if len(made) not in (1, count or len(made)):
        raise ParameterError(f"{name} holds {len(made)} prompts; expected one or {count}, one a prompt")
    return made.repeated((count or len(made)) // len(made))


def check_exclusive(name: str, prompt: object, embeds: object, mask: object) -> None:
    """Raise ParameterError for a prompt given twice or not at all, or a mask without states."""
    if (prompt is None) == (embeds is None):
        raise ParameterError(f"give {name} or {name}_embeds (a caption, a list of captions, or their states), not both")
    if mask is not None and embeds is None:
        raise ParameterError(f"{name}_attention_mask belongs to {name}_embeds, which is not given")


def asked_guidance(guidance: float | Guidance) -> Guidance:
    """Guidance as a call means it: a plain 0 is "none", as everywhere in diffusers, and so is 1."""
    made = as_guidance(guidance)
    return Guidance(1.0) if not isinstance(guidance, Guidance) and made.scale == 0 else made


def start_noise(
    shape: tuple[int, ...], generator: object, latents: Tensor | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The noise to start from, drawn or the caller's; a ParameterError if its shape or the generator does not fit."""
    several = isinstance(generator, (list, tuple))
    given = list(generator) if several else [generator]
    if generator is not None and not all(isinstance(g, torch.Generator) for g in given):
        raise ParameterError(
            f"generator must be a torch.Generator or a list of them, got {generator!r}; "
            "a seed n is torch.Generator().manual_seed(n)"
        )
    if several and len(given) != shape[0]:
        raise ParameterError(f"{len(given)} generators for {shape[0]} clips; give one generator, or one a clip")
    if latents is None:
        try:
            return randn_tensor(shape, generator=given if several else generator, device=device, dtype=dtype)
        except ValueError as error:  # a generator of a GPU for a pipeline on the processor
            raise ParameterError(f"generator: {error}") from error
    if shape_of(latents) != shape:
        raise ParameterError(f"latents must be {shape} for this many clips and this size, got {shape_of(latents)}")
    return latents.to(device=device, dtype=dtype)


def check_known(name: str, asked: object, known: tuple[str, ...]) -> None:
    """Raise ParameterError for what is not among the known values."""
    if asked not in known:
        raise ParameterError(f"unknown {name} {asked!r}; known are {', '.join(known)}")


def check_fit(vae: MobiVidVAE, transformer: MobiVidTransformer3DModel, text_encoder: PreTrainedModel) -> None:
    """Raise ParameterError for parts that were not trained together: latent channels or widths of states differ."""
    for told, has, wanted in (
        ("the VAE has {} latent channels", vae.config.latent_channels, transformer.config.in_channels),
        ("the text encoder's states are {} wide", text_encoder.config.hidden_size, transformer.config.text_dim),
    ):
        if has != wanted:
            raise ParameterError(f"{told.format(has)}, the transformer expects {wanted}; load a matching pair")
