"""Text to video in one call: text encoder, diffusion transformer and VAE behind diffusers' pipeline interface.

Paper: the whole inference path, server (40 guided steps) or mobile (4 steps, no guidance). The text encoder comes from
an installed package and is not part of a checkpoint folder; another one with diffusers' CLIP interface may be passed.
Arguments are checked in `call`, folders are read in `folder`; nothing is ever downloaded.

Simplified: one clip length and size a call, no memory offloading of its own beyond what diffusers gives.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from mobivid_core import artifacts
from mobivid_core.errors import ParameterError
from mobivid_core.files import read_json
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance
from mobivid_core.flow.sampling import (
    Point,
    check_scheduler,
    guided_velocity,
    in_bfloat16,
    integrate,
    make_scheduler,
    scheduler_grid,
)
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.first_frame import FirstFrame, ImageInput, encode_image
from mobivid_core.models.text import load_text_encoder, load_tokenizer, token_states
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import user_path
from mobivid_core.pipeline.call import (
    CALLBACK_TENSORS,
    MobiVidPipelineOutput,
    OutputType,
    as_condition,
    as_prompts,
    asked_guidance,
    check_exclusive,
    check_fit,
    check_known,
    start_noise,
    whole_number,
)
from mobivid_core.pipeline.folder import Dtype, convert, load_part, names_part, read_index
from mobivid_core.profiles import get_profile
from mobivid_core.train import precision

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Clips decoded together: bounds memory, changes no result.
_DECODE_BATCH = 8
#: How a transformer that was not distilled is sampled if the call says nothing: as the chain samples its teacher.
_TEACHER = {"steps": 40, "guidance": get_profile("laptop").guidance}


class MobiVidPipeline(DiffusionPipeline):
    """Text-to-video pipeline: `MobiVidPipeline.from_shipped()("a red star moving right").frames`.

    Args:
        vae: Video autoencoder.
        transformer: Velocity predictor trained on that autoencoder's latents.
        scheduler: A flow-matching solver, as `make_scheduler` builds; it is put on the textbook grid in every call.
        tokenizer, text_encoder: None for the packaged ones (frozen MiniLM), of which a copy is taken, so that moving
            this pipeline to another device leaves `encode_text` alone.
        distilled: For a distilled student, how it was made to be sampled (its `distilled.json`): its steps and guidance
            become the defaults of a call, and other ones warn. The transformer remembers it, so that another pipeline
            around the same transformer samples it the same way; None takes what the transformer remembers.

    Raises:
        ParameterError: The transformer does not fit the VAE's latents or the text encoder's width, or the scheduler is
            not one for flow matching.
        CheckpointError: The packaged text encoder is not installed.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["tokenizer", "text_encoder"]
    _callback_tensor_inputs = list(CALLBACK_TENSORS)

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
        check_fit(vae, transformer, text_encoder)
        check_scheduler(scheduler)
        distilled = getattr(transformer, "distilled", None) if distilled is None else distilled
        if distilled is not None:
            distilled = transformer.distilled = {name: distilled[name] for name in _TEACHER}
        self.register_to_config(distilled=distilled)
        self.register_modules(
            vae=vae, transformer=transformer, scheduler=scheduler, tokenizer=tokenizer, text_encoder=text_encoder
        )

    @classmethod
    def from_shipped(cls, stage: Literal["teacher", "student", "distilled"] = "teacher") -> MobiVidPipeline:
        """The pipeline around a shipped teacher, pruned and distilled student, or distilled teacher."""
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
        dtype: Dtype | None = None,
        torch_dtype: Dtype | None = None,
        variant: str | None = None,
        vae: MobiVidVAE | None = None,
        transformer: MobiVidTransformer3DModel | None = None,
        scheduler: SchedulerMixin | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_encoder: PreTrainedModel | None = None,
    ) -> MobiVidPipeline:
        """Load a folder written by `save_pretrained`, with the parts that are given in the place of its own.

        `dtype`, or by its older name `torch_dtype`, is what models are converted to from float32: a type, or name ->
        type with "default" for the others. `variant` takes weights saved under this name, e.g. "fp16".

        Raises:
            CheckpointError: The folder is no saved pipeline, or a part is missing or corrupt.
            ParameterError: Two different types are asked for, or parts do not fit.
        """
        folder = user_path(folder)
        index = read_index(folder)
        card = index.get("distilled") if transformer is None else None
        vae = vae or artifacts.load_model(MobiVidVAE, folder / "vae", variant)
        transformer = transformer or artifacts.load_model(MobiVidTransformer3DModel, folder / "transformer", variant)
        scheduler = scheduler or load_part(folder, index, "scheduler")
        if tokenizer is None and text_encoder is None and names_part(index, "text_encoder"):
            tokenizer, text_encoder = (load_part(folder, index, n, variant) for n in ("tokenizer", "text_encoder"))
        pipeline = cls(vae, transformer, scheduler, tokenizer, text_encoder, card)
        convert(pipeline.components, dtype, torch_dtype)
        return pipeline

    def save_pretrained(
        self, save_directory: str | Path, safe_serialization: bool = True, variant: str | None = None
    ) -> None:
        """Write model_index.json and one folder a component; a packaged text encoder is left out.

        `variant` is put into the names of the weights, e.g. "fp16"; `from_pretrained` asks for it. ParameterError where
        `safe_serialization=False` asks for pickles.
        """
        if not safe_serialization:
            raise ParameterError("safe_serialization=False would write pickles; only safetensors are supported")
        text = {"tokenizer": self.tokenizer, "text_encoder": self.text_encoder}
        try:
            if self._packaged_text:
                self.register_modules(tokenizer=None, text_encoder=None)
            super().save_pretrained(str(user_path(save_directory)), variant=variant)
        finally:
            self.register_modules(**text)

    def encode_prompt(self, prompt: str | list[str]) -> tuple[Tensor, Tensor]:
        """States (N, L, D) of captions in the transformer's type, zero at padding, and mask (N, L) bool, on its device.

        A call takes them as `prompt_embeds` and `prompt_attention_mask`.
        """
        parts = self.tokenizer, self.text_encoder
        states, mask = token_states(as_prompts(prompt), *parts, device=self._execution_device)
        return states.to(self.transformer.dtype), mask

    @property
    def guidance_scale(self) -> float | Guidance:
        """Guidance of the call in progress; a callback may set `_guidance_scale`."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps of the call in progress."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_frames: int = 17,
        height: int = 128,
        width: int = 128,
        num_inference_steps: int | None = None,
        guidance_scale: float | Guidance | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        image: ImageInput | None = None,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[MobiVidPipeline, int, Tensor, dict], dict] | None = None,
        bf16: bool | None = False,
        num_videos_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> MobiVidPipelineOutput | tuple:
        """Generate clips: B = prompts * `num_videos_per_prompt`, those of one prompt beside each other.

        Args:
            prompt: One caption or a list of them.
            negative_prompt: What guidance moves away from, one or one a prompt; None is "", the empty caption.
            num_frames: 1 + a multiple of the VAE's time ratio.
            height, width: In pixels, multiples of the VAE's ratio.
            num_inference_steps: Solver steps on the textbook grid; None: 40, or what a distilled student was made for.
            guidance_scale: v_negative + scale * (v_prompt - v_negative); 0 and 1 turn guidance off (and halve the
                cost); a `Guidance` limits it to some noise levels or rescales it. None: 3, or what a student was made
                for.
            generator: Source of the noise; a list has one a clip.
            latents: (B, C, t, h, w) noise instead of drawing.
            image: The clip starts with this image (one, or one a prompt or a clip); kinds: see `models.first_frame`.
            output_type: "np", "pt", "pil" or "latent"; see `MobiVidPipelineOutput`.
            return_dict: False returns (frames,).
            callback_on_step_end: Called as (pipeline, step, timestep, tensors) after each step; may return a dict with
                other ones, and set `_interrupt` on the pipeline to leave out the steps that are left.
            bf16: Sample and decode in bfloat16 (steps and guidance stay in the pipeline's type): other clips by less
                than a grey level on average. None: where it is faster on this machine, which is timed once.
            prompt_embeds, negative_prompt_embeds: (prompts, L, D) states instead of captions, as of `encode_prompt`.
            prompt_attention_mask, negative_prompt_attention_mask: (prompts, L), true at real tokens; None takes the
                rows that are not all zero.
            callback_on_step_end_tensor_inputs: What the callback is given, of `CALLBACK_TENSORS`.

        Raises:
            ParameterError: An argument does not fit, e.g. sizes (the message names the nearest valid ones), or a
                scheduler that is not one for flow matching was put in the place of the pipeline's.
        """
        check_known("output_type", output_type, get_args(OutputType))
        if negative_prompt is None and negative_prompt_embeds is None:
            negative_prompt = ""
        text_given = "prompt", prompt, prompt_embeds, prompt_attention_mask
        null_given = "negative_prompt", negative_prompt, negative_prompt_embeds, negative_prompt_attention_mask
        check_exclusive(*text_given)
        check_exclusive(*null_given)
        check_scheduler(self.scheduler)
        sizes = {"num_frames": num_frames, "height": height, "width": width}
        latent_shape = self.vae.latent_shape(*(whole_number(name, value) for name, value in sizes.items()))
        copies = whole_number("num_videos_per_prompt", num_videos_per_prompt)
        steps, self._guidance_scale = self._asked(num_inference_steps, guidance_scale)
        self._num_timesteps, self._interrupt = steps, False
        wanted = callback_on_step_end_tensor_inputs
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            wanted = callback_on_step_end.tensor_inputs
        wanted = [wanted] if isinstance(wanted, str) else wanted
        for name in wanted:
            check_known("callback_on_step_end_tensor_inputs", name, CALLBACK_TENSORS)

        text = self._condition(*text_given)
        prompts = len(text)
        shape, dtype = (prompts * copies, *latent_shape), self.transformer.dtype
        x = start_noise(shape, generator, latents, self._execution_device, dtype)
        if self._guidance_scale.needed:
            null = self._condition(*null_given, prompts)
            text = text.padded(max(text.text.shape[1], null.text.shape[1]))
            text = replace(text, null_text=null.text, null_mask=null.mask)
        text = text.repeated(copies)
        first = None
        if image is not None:
            first = FirstFrame(encode_image(self.vae, image, prompts, len(x), height, width, x.device), x[:, :, :1])

        bf16 = precision.asked(bf16, precision.DIT, x.device.type)
        model = in_bfloat16(self.transformer) if bf16 else self.transformer

        def velocity(x: Tensor, sigma: float) -> Tensor:  # a callback may change captions and guidance on the way
            return guided_velocity(model, text, asked_guidance(self._guidance_scale))(x, sigma)

        with self.progress_bar(total=steps) as bar:
            for point in integrate(velocity, x, scheduler_grid(self.scheduler, steps), self.scheduler):
                if point.step:
                    if callback_on_step_end is not None:
                        text = self._call_back(callback_on_step_end, point, text, wanted)
                    bar.update()
                if first is not None:
                    point.x = first.hold(point.x, 0.0 if self._interrupt else point.sigma)
                if self._interrupt:
                    break
        frames = point.x if output_type == "latent" else self._decode(point.x, output_type, bf16)
        self.maybe_free_model_hooks()
        return MobiVidPipelineOutput(frames=frames) if return_dict else (frames,)

    def _asked(self, steps: int | None, guidance: float | Guidance | None) -> tuple[int, Guidance]:
        """Steps and guidance of a call: what it asks for, else the transformer's own; a student warns about others."""
        own = self.config.distilled or _TEACHER
        steps = own["steps"] if steps is None else whole_number("num_inference_steps", steps)
        guidance = asked_guidance(own["guidance"] if guidance is None else guidance)
        if self.config.distilled and (steps, guidance) != (own["steps"], asked_guidance(own["guidance"])):
            warnings.warn(
                f"this transformer was distilled for {own['steps']} steps at guidance {own['guidance']:g}, asked for "
                f"{steps} at {guidance:g}: expect worse clips; leave both out, or use the teacher",
                stacklevel=3,
            )
        return steps, guidance

    def _condition(
        self, name: str, prompt: object, embeds: Tensor | None, mask: Tensor | None, count: int | None = None
    ) -> Condition:
        """States and mask of prompts, or those that were given in their place."""
        if embeds is None:
            return Condition(*self.encode_prompt(as_prompts(prompt, count, name)))
        like = torch.empty(0, device=self._execution_device, dtype=self.transformer.dtype)
        return as_condition(f"{name}_embeds", embeds, mask, self.transformer.config.text_dim, like, count)

    def _call_back(self, call: Callable, point: Point, text: Condition, wanted: Sequence[str]) -> Condition:
        """Give a callback the tensors it wants and take over what it returns; the captions to go on with."""
        offered = {"latents": point.x, "prompt_embeds": text.text, "negative_prompt_embeds": text.null_text}
        step = point.step - 1
        returned = call(self, step, self.scheduler.timesteps[step], {name: offered[name] for name in wanted})
        if returned is None:
            return text
        if not isinstance(returned, dict):
            raise ParameterError(f"callback_on_step_end must return a dict or None, got {type(returned).__name__}")
        offered |= returned
        point.x = offered["latents"]
        return replace(text, text=offered["prompt_embeds"], null_text=offered["negative_prompt_embeds"])

    def _decode(self, latents: Tensor, output_type: OutputType, bf16: bool) -> np.ndarray | Tensor | list[list[Image]]:
        """Normalised latents to frames of the asked type."""
        parts = latents.to(self.vae.dtype).split(_DECODE_BATCH)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16):
            clips = torch.cat([self.vae.decode_latents(part) for part in parts])
        return VideoProcessor().postprocess_video(clips.float(), output_type)
