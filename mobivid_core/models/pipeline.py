"""Text to video in one call: text encoder, diffusion transformer and VAE behind diffusers' pipeline interface.

Paper: the whole inference path, server (40 guided steps) or mobile (4 steps, no guidance). The text encoder comes from
an installed package and is not part of a checkpoint folder; another one with diffusers' CLIP interface may be passed.

Simplified: one clip length and size a call, no memory offloading of its own beyond what diffusers gives.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from mobivid_core import artifacts
from mobivid_core.diffusion.guidance import Guidance, as_guidance
from mobivid_core.diffusion.sampling import guided_velocity, in_bfloat16, make_scheduler, set_textbook_sigmas
from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.files import read_json
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.first_frame import FirstFrame, encode_image
from mobivid_core.models.text import MAX_LENGTH, load_text_encoder, load_tokenizer
from mobivid_core.models.vae import MobiVidVAE

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OutputType = Literal["np", "pt", "pil", "latent"]
_OUTPUT_TYPES = ("np", "pt", "pil", "latent")
#: Clips decoded together: bounds memory, changes no result.
_DECODE_BATCH = 8
#: How a transformer that was not distilled is sampled if the call says nothing: the paper's server.
_TEACHER = {"steps": 40, "guidance": 3.0}


@dataclass
class MobiVidPipelineOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        frames: "np": (B, T, H, W, 3) float32 in [0, 1]; "pt": (B, T, 3, H, W) in [0, 1]; "pil": B lists of T images;
            "latent": (B, C, t, h, w) normalised latents.
    """

    frames: np.ndarray | Tensor | list[list[Image]]


class MobiVidPipeline(DiffusionPipeline):
    """Text-to-video pipeline.

    Example:
        `MobiVidPipeline.from_shipped()("a red star moving right on a plain background").frames`

    Args:
        vae: Video autoencoder.
        transformer: Velocity predictor trained on that autoencoder's latents.
        scheduler: A flow-matching solver, as `make_scheduler` builds; it is put on the textbook grid in every call.
        tokenizer: None for the packaged one.
        text_encoder: None for the packaged one (frozen MiniLM). A copy of it is taken, so that moving this pipeline to
            another device leaves `encode_text` alone.
        distilled: For a distilled student, how it was made to be sampled (its `distilled.json`): its steps and guidance
            become the defaults of a call, and other ones warn.

    Raises:
        ParameterError: The transformer does not fit the VAE's latents or the text encoder's width.
        CheckpointError: The packaged text encoder is not installed.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["tokenizer", "text_encoder"]

    def __init__(
        self,
        vae: MobiVidVAE,
        transformer: MobiVidTransformer3DModel,
        scheduler: SchedulerMixin,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
        distilled: dict | None = None,
    ) -> None:
        super().__init__()
        if (tokenizer is None) != (text_encoder is None):
            raise ParameterError(
                "tokenizer and text_encoder belong together: pass both, or neither for the packaged ones"
            )
        self._packaged_text = text_encoder is None
        if self._packaged_text:
            tokenizer, text_encoder = load_tokenizer(), copy.deepcopy(load_text_encoder())
        _check_fit(vae, transformer, text_encoder)
        if distilled is not None:
            distilled = {name: distilled[name] for name in _TEACHER}
        self.register_to_config(distilled=distilled)
        self.register_modules(
            vae=vae, transformer=transformer, scheduler=scheduler, tokenizer=tokenizer, text_encoder=text_encoder
        )

    @classmethod
    def from_shipped(cls, stage: Literal["teacher", "student", "distilled"] = "teacher") -> MobiVidPipeline:
        """The pipeline around a shipped checkpoint.

        Args:
            stage: Which shipped transformer: the teacher, the pruned and distilled student, or the distilled teacher.

        Raises:
            CheckpointError: The checkpoint is missing or corrupt.
        """
        vae = artifacts.load_model(MobiVidVAE, artifacts.shipped_path("vae"))
        folder = artifacts.shipped_path(stage)
        transformer = artifacts.load_model(MobiVidTransformer3DModel, folder)
        # a student without its card would be sampled like a teacher, and badly
        card = read_json(artifacts.verify_file(folder, "distilled.json")) if stage != "teacher" else None
        return cls(vae, transformer, make_scheduler("euler"), distilled=card)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        vae: MobiVidVAE | None = None,
        transformer: MobiVidTransformer3DModel | None = None,
        scheduler: SchedulerMixin | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
    ) -> MobiVidPipeline:
        """Load a folder written by `save_pretrained`; nothing is ever downloaded.

        Args:
            folder: Holds model_index.json, vae/, transformer/, scheduler/, and tokenizer/ and text_encoder/ if the
                pipeline was saved with its own.
            torch_dtype: Convert the models to this type (float32 if None).
            vae: Used instead of the folder's; so are the other components.
            transformer: See `vae`.
            scheduler: See `vae`.
            tokenizer: See `vae`.
            text_encoder: See `vae`.

        Raises:
            CheckpointError: The folder is no saved pipeline, or a part is missing or corrupt.
        """
        folder = Path(folder)
        index = _read_index(folder)
        if tokenizer is None and text_encoder is None and index.get("text_encoder", [None])[0]:
            tokenizer, text_encoder = (_load_part(folder, index, name) for name in ("tokenizer", "text_encoder"))
        pipeline = cls(
            vae or artifacts.load_model(MobiVidVAE, folder / "vae"),
            transformer or artifacts.load_model(MobiVidTransformer3DModel, folder / "transformer"),
            scheduler or _load_part(folder, index, "scheduler"),
            tokenizer,
            text_encoder,
            index.get("distilled") if transformer is None else None,
        )
        return pipeline if torch_dtype is None else pipeline.to(torch_dtype)

    def save_pretrained(self, save_directory: str | Path, safe_serialization: bool = True) -> None:
        """Write model_index.json and one folder a component; a packaged text encoder is left out.

        Args:
            save_directory: Made if missing.
            safe_serialization: Only True: this project writes no pickles.

        Raises:
            ParameterError: Pickles were asked for.
        """
        if not safe_serialization:
            raise ParameterError("safe_serialization=False would write pickles; only safetensors are supported")
        text = {"tokenizer": self.tokenizer, "text_encoder": self.text_encoder}
        try:
            if self._packaged_text:
                self.register_modules(tokenizer=None, text_encoder=None)
            super().save_pretrained(str(save_directory))
        finally:
            self.register_modules(**text)

    @torch.no_grad()
    def encode_prompt(self, prompt: list[str]) -> tuple[Tensor, Tensor]:
        """Token states of prompts.

        Args:
            prompt: N captions.

        Returns:
            States (N, L, D) in the transformer's type, zero at padding, and mask (N, L) bool, on the pipeline's device.
        """
        tokens = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        for text, ids in zip(prompt, self.tokenizer(prompt)["input_ids"], strict=True):
            if len(ids) > MAX_LENGTH:
                warnings.warn(f"{len(ids)} tokens, cut to {MAX_LENGTH}: {text!r}", stacklevel=2)
        ids, mask = (tokens[key].to(self._execution_device) for key in ("input_ids", "attention_mask"))
        states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states.to(self.transformer.dtype) * mask[..., None].to(self.transformer.dtype), mask.bool()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] = "",
        num_frames: int = 17,
        height: int = 128,
        width: int = 128,
        num_inference_steps: int | None = None,
        guidance_scale: float | Guidance | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        image: Image | np.ndarray | Tensor | None = None,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[MobiVidPipeline, int, Tensor, dict], dict] | None = None,
        bf16: bool | None = False,
    ) -> MobiVidPipelineOutput | tuple:
        """Generate one clip a prompt.

        Args:
            prompt: One caption or B of them.
            negative_prompt: What guidance moves away from; "" is plain classifier-free guidance. One, or one a prompt.
            num_frames: 1 + a multiple of the VAE's time ratio.
            height: In pixels, a multiple of the VAE's ratio.
            width: See `height`.
            num_inference_steps: Solver steps on the textbook grid; None: 40, or what a distilled student was made for.
            guidance_scale: v_negative + scale * (v_prompt - v_negative); 1 turns guidance off (and halves the cost);
                a `Guidance` limits it to some noise levels or rescales it. None: 3, or what a student was made for.
            generator: Source of the noise; a list has one a prompt.
            latents: (B, C, t, h, w) noise instead of drawing.
            image: Image to video: the clip starts with this image (PIL, array or tensor in [0, 1]; one, or one a
                prompt), see `models.first_frame`.
            output_type: "np", "pt", "pil" or "latent"; see `MobiVidPipelineOutput`.
            return_dict: False returns (frames,).
            callback_on_step_end: Called as (pipeline, step, timestep, {"latents": ...}) after each step; may return a
                dict with other latents.
            bf16: Sample and decode in bfloat16 (steps and guidance stay in the pipeline's type): other clips by less
                than a grey level on average. None: where it is faster on this machine, which is timed once.

        Raises:
            ParameterError: Sizes that do not fit the VAE (the message names the nearest valid ones), an unknown output
                type, a prompt that is no string, or latents of another shape.
        """
        prompts = _as_prompts(prompt)
        if output_type not in _OUTPUT_TYPES:
            raise ParameterError(f"unknown output_type {output_type!r}; use one of {', '.join(_OUTPUT_TYPES)}")
        shape = (len(prompts), *self.vae.latent_shape(num_frames, height, width))
        num_inference_steps, guidance_scale = self._asked(num_inference_steps, guidance_scale)
        x = self._start(shape, generator, latents)
        first = None if image is None else FirstFrame(encode_image(self.vae, image, len(x), height, width), x[:, :, :1])
        text, mask = self.encode_prompt(prompts)
        null = self.encode_prompt(_as_prompts(negative_prompt, len(prompts))) if guidance_scale.needed else None
        set_textbook_sigmas(self.scheduler, num_inference_steps, x.device)
        bf16 = self._faster_in_bfloat16() if bf16 is None else bf16
        model = in_bfloat16(self.transformer) if bf16 else self.transformer
        with self.progress_bar(total=num_inference_steps) as bar:
            for step, timestep in enumerate(self.scheduler.timesteps):
                x = x if first is None else first.hold(x, float(self.scheduler.sigmas[step]))
                v = guided_velocity(model, x, timestep, text, mask, null, guidance_scale)
                x = self.scheduler.step(v, timestep, x, return_dict=False)[0]
                if callback_on_step_end is not None:
                    x = (callback_on_step_end(self, step, timestep, {"latents": x}) or {}).get("latents", x)
                bar.update()
        x = x if first is None else first.hold(x, 0.0)
        frames = x if output_type == "latent" else self._decode(x, output_type, bf16)
        self.maybe_free_model_hooks()
        return MobiVidPipelineOutput(frames=frames) if return_dict else (frames,)

    def _asked(self, steps: int | None, guidance: float | Guidance | None) -> tuple[int, Guidance]:
        """Steps and guidance of a call: what it asks for, else the transformer's own; a student warns about others."""
        own = self.config.distilled or _TEACHER
        steps = own["steps"] if steps is None else steps
        guidance = as_guidance(own["guidance"] if guidance is None else guidance)
        if self.config.distilled and (steps, guidance) != (own["steps"], as_guidance(own["guidance"])):
            warnings.warn(
                f"this transformer was distilled for {own['steps']} steps at guidance {own['guidance']:g}, asked for "
                f"{steps} at {guidance:g}: expect worse clips; leave both out, or use the teacher",
                stacklevel=3,
            )
        return steps, guidance

    def _start(self, shape: tuple[int, ...], generator: object, latents: Tensor | None) -> Tensor:
        """The noise to start from."""
        device, dtype = self._execution_device, self.transformer.dtype
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        if tuple(latents.shape) != shape:
            raise ParameterError(
                f"latents must be {shape} for this many prompts and this size, got {tuple(latents.shape)}"
            )
        return latents.to(device=device, dtype=dtype)

    def _faster_in_bfloat16(self) -> bool:
        if self._execution_device.type != "cpu":
            return True
        from mobivid_core.training.precision import DIT, choose

        precision = choose(DIT)
        print(f"sampling in {precision}")
        return precision.bf16

    def _decode(self, latents: Tensor, output_type: OutputType, bf16: bool) -> np.ndarray | Tensor | list[list[Image]]:
        """Normalised latents to frames of the asked type."""
        parts = latents.to(self.vae.dtype).split(_DECODE_BATCH)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16):
            clips = torch.cat([self.vae.decode_latents(part) for part in parts])
        frames = ((clips.float() + 1) / 2).transpose(1, 2)
        if output_type == "pt":
            return frames
        array = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
        return array if output_type == "np" else [self.numpy_to_pil(clip) for clip in array]


def _as_prompts(prompt: str | list[str], count: int | None = None) -> list[str]:
    """A list of prompts; one string is repeated to `count`."""
    prompts = [prompt] * (count or 1) if isinstance(prompt, str) else prompt
    captions = isinstance(prompts, (list, tuple)) and len(prompts) > 0 and all(isinstance(p, str) for p in prompts)
    if not captions or len(prompts) != (count or len(prompts)):
        wanted = (
            "a caption or a non-empty list of captions" if count is None else f"one caption or {count}, one a prompt"
        )
        raise ParameterError(f"expected {wanted}, got {prompt!r}")
    return list(prompts)


def _check_fit(vae: MobiVidVAE, transformer: MobiVidTransformer3DModel, text_encoder: PreTrainedModel) -> None:
    """Refuse parts that were not trained together."""
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


def _read_index(folder: Path) -> dict:
    """The folder's model_index.json."""
    try:
        return json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no model_index.json in {folder}: expected a folder written by save_pretrained"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{folder / 'model_index.json'} cannot be read ({error}); save the pipeline again"
        ) from error


def _load_part(folder: Path, index: dict, name: str) -> object:
    """Load a component of diffusers or transformers by the class that the index names."""
    import diffusers
    import transformers

    library, kind = (index.get(name) or (None, None))[:2]
    found = getattr({"diffusers": diffusers, "transformers": transformers}.get(library), str(kind), None)
    if found is None or not (folder / name).is_dir():
        raise CheckpointError(
            f"{folder} has no usable {name} (model_index.json says {library}.{kind}): pass {name}=... "
            "or save the pipeline again"
        )
    try:
        return found.from_pretrained(folder / name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / name} cannot be loaded ({error}); save the pipeline again") from error
