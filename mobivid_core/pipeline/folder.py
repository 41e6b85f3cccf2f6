"""Read a pipeline's folder without downloads: index, parts, variants and number type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from mobivid_core.errors import CheckpointError, ParameterError, RunError
from mobivid_core.files import read_json

Dtype = torch.dtype | Mapping[str, torch.dtype]


def read_index(folder: Path) -> dict:
    """The folder's model_index.json; a CheckpointError if it is missing or no JSON object."""
    path = folder / "model_index.json"
    try:
        index = read_json(path)
    except (NotADirectoryError, RunError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); save the pipeline again") from error
    if not isinstance(index, dict):
        found = "holds no JSON object" if path.is_file() else "is missing"
        raise CheckpointError(f"{path} {found}: expected a folder written by save_pretrained; save the pipeline again")
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


def convert(parts: Mapping[str, object], dtype: Dtype | None, torch_dtype: Dtype | None) -> None:
    """Convert models in place to a floating-point type, or to types by name: "default" is the others' (else float32).

    Raises:
        ParameterError: `torch_dtype`, diffusers' older name of `dtype`, says something else; or no such type or model.
    """
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise ParameterError(f"dtype={dtype} and torch_dtype={torch_dtype} are two names of one thing; give one")
    dtype = torch_dtype if dtype is None else dtype
    if dtype is None:
        return
    by_name = dtype if isinstance(dtype, Mapping) else {"default": dtype}
    for value in by_name.values():
        if not isinstance(value, torch.dtype) or not value.is_floating_point:
            raise ParameterError(f"dtype must be a floating-point type such as torch.float16, got {value!r}")
    models = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    unknown = sorted(set(by_name) - {"default", *models})
    if unknown:
        raise ParameterError(f"dtype names {', '.join(unknown)}; the models are {', '.join(models)}, or 'default'")
    for name, model in models.items():
        # not the override of diffusers, which warns about modules to be kept in float32 where there are none
        torch.nn.Module.to(model, by_name.get(name, by_name.get("default", torch.float32)))
