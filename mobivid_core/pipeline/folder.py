"""Read and write a pipeline's folder without downloads: index, parts, variants and number type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from diffusers import DiffusionPipeline, SchedulerMixin

from mobivid_core import artifacts
from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import user_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = torch.dtype | Mapping[str, torch.dtype]


class LocalPipeline(DiffusionPipeline):
    """A pipeline of this project's models on disk; what it computes is `pipeline.MobiVidPipeline`'s."""

    _packaged_text: bool

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
    ) -> Self:
        """Load a folder written by `save_pretrained`; nothing is ever downloaded.

        Args:
            folder: Holds model_index.json, vae/, transformer/, scheduler/, and tokenizer/ and text_encoder/ if the
                pipeline was saved with its own.
            dtype: Convert the models to this type (float32 if None), or name -> type with "default" for the others.
            torch_dtype: The older name of `dtype`.
            variant: Take the weights that were saved under this name, e.g. "fp16".
            vae, transformer, scheduler, tokenizer, text_encoder: Used instead of the folder's.

        Raises:
            CheckpointError: The folder is no saved pipeline, or a part is missing or corrupt.
            ParameterError: Two different types are asked for, or parts do not fit.
        """
        folder, dtype = user_path(folder), asked_dtype(dtype, torch_dtype)
        index = read_index(folder)
        own = transformer is not None
        vae = vae or artifacts.load_model(MobiVidVAE, folder / "vae", variant)
        transformer = transformer or artifacts.load_model(MobiVidTransformer3DModel, folder / "transformer", variant)
        if tokenizer is None and text_encoder is None and names_part(index, "text_encoder"):
            tokenizer, text_encoder = (load_part(folder, index, n, variant) for n in ("tokenizer", "text_encoder"))
        pipeline = cls(
            vae,
            transformer,
            scheduler or load_part(folder, index, "scheduler"),
            tokenizer,
            text_encoder,
            None if own else index.get("distilled"),
        )
        convert(pipeline.components, dtype)
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


def read_index(folder: Path) -> dict:
    """The folder's model_index.json; a CheckpointError if it is missing or no JSON object."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"no model_index.json in {folder}: expected a folder written by save_pretrained"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); save the pipeline again") from error
    if not isinstance(index, dict):
        raise CheckpointError(f"{path} holds no JSON object; save the pipeline again")
    return index


def names_part(index: dict, name: str) -> bool:
    """Whether the index names a class for this part."""
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) >= 2 and entry[0] is not None


def load_part(folder: Path, index: dict, name: str, variant: str | None = None) -> object:
    """Load a component of diffusers or transformers by the class that the index names, or raise CheckpointError."""
    import diffusers
    import transformers

    library, kind = index[name][:2] if names_part(index, name) else (None, None)
    found = getattr({"diffusers": diffusers, "transformers": transformers}.get(library), str(kind), None)
    if found is None or not (folder / name).is_dir():
        raise CheckpointError(
            f"{folder} has no usable {name} (model_index.json says {library}.{kind}): pass {name}=... "
            "or save the pipeline again"
        )
    chosen = {"variant": variant} if variant and name == "text_encoder" else {}
    try:
        return found.from_pretrained(folder / name, local_files_only=True, **chosen)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / name} cannot be loaded ({error}); save the pipeline again") from error


def asked_dtype(dtype: Dtype | None, torch_dtype: Dtype | None) -> Dtype | None:
    """The one floating-point type asked for, or a ParameterError; `torch_dtype` is diffusers' older name of `dtype`."""
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise ParameterError(f"dtype={dtype} and torch_dtype={torch_dtype} are two names of one thing; give one")
    asked = torch_dtype if dtype is None else dtype
    for value in asked.values() if isinstance(asked, Mapping) else () if asked is None else (asked,):
        if not isinstance(value, torch.dtype) or not value.is_floating_point:
            raise ParameterError(f"dtype must be a floating-point type such as torch.float16, got {value!r}")
    return asked


def convert(parts: Mapping[str, object], dtype: Dtype | None) -> None:
    """Convert models in place; a mapping gives a type by name, "default" the others' (float32 if it does not say)."""
    if dtype is None:
        return
    by_name = dtype if isinstance(dtype, Mapping) else {"default": dtype}
    models = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    unknown = sorted(set(by_name) - {"default", *models})
    if unknown:
        raise ParameterError(f"dtype names {', '.join(unknown)}; the models are {', '.join(models)}, or 'default'")
    for name, model in models.items():
        # not the override of diffusers, which warns about modules to be kept in float32 where there are none
        torch.nn.Module.to(model, by_name.get(name, by_name.get("default", torch.float32)))
