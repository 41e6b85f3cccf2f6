"""Transformers on disk: diffusers' LTX-Video or ours, single or sharded safetensors, memory-mapped.

Tensors stay mapped files until they are used, so that inspecting a checkpoint takes no memory and the system reads a
model larger than the memory block by block. Pickles are never opened.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import cpu_offload
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mobivid_core.artifacts import PICKLES, WEIGHTS
from mobivid_core.errors import CheckpointError
from mobivid_core.files import replacing, write_json
from mobivid_core.ltx import layout
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.train.precision import choose

OURS = ("MobiVidTransformer3DModel", "MobiVidLTXTransformer")
#: Types that the layers compute in; checkpoints in others (float8, float64) become bfloat16 or float32.
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Largest share of the free memory for weights: activations and the system need the rest.
_MEMORY_SHARE = 0.6
#: Other classes, and the features of theirs that our layers lack.
_MISSING = {
    "WanTransformer3DModel": "layer norms for RMS norms, an affine norm before cross-attention and 1x2x2 patches",
    "LTX2VideoTransformer3DModel": "audio streams and split rotary tables",
}


@dataclass(frozen=True)
class Source:
    """A transformer's folder; the weights are not read."""

    folder: Path
    sizes: DiTConfig
    config: dict[str, Any]  # content of config.json


def find_transformer(folder: Path) -> Source:
    """The transformer in a pipeline folder, or the folder of one; a CheckpointError for none or an unknown class."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give a diffusers pipeline folder or its transformer/")
    if (folder / "model_index.json").is_file() or not (folder / "config.json").is_file():
        folder = folder / "transformer"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = config["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"no readable transformer config at {folder / 'config.json'} ({error})") from error
    if name == layout.CLASS:
        return Source(folder, layout.sizes_of(config), config)
    if name not in OURS:
        lacks = f"; {name} needs {_MISSING[name]}, which the layers here lack" if name in _MISSING else ""
        raise CheckpointError(f"{folder} holds a {name}; supported are {', '.join((layout.CLASS, *OURS))}{lacks}")
    names = DiTConfig.__dataclass_fields__
    try:
        sizes = DiTConfig.from_kwargs({k: v for k, v in config.items() if k in names and v is not None})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is no config of a transformer of ours: {error}") from error
    return Source(folder, sizes, config)


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """Tensors by name, as mapped files, of a folder's safetensors: one file, or shards and their index."""
    index, files, found = folder / f"{WEIGHTS}.index.json", {WEIGHTS}, {}
    if not (folder / WEIGHTS).is_file():
        if not index.is_file():
            pickles = [p.name for p in folder.glob("*") if p.suffix in PICKLES]
            why = f"; {pickles[0]} is not read: pickles can run code" if pickles else ""
            raise CheckpointError(f"no {WEIGHTS} nor {index.name} in {folder}{why}")
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} is no index of shards ({error}); fetch it again") from error
    for file in sorted(files):
        try:
            found |= load_file(folder / file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / file} is missing, torn or no safetensors ({error})") from error
    return found


def load_transformer(
    folder: Path, dtype: torch.dtype | None = None, rope_scale: tuple[float, ...] | None = None
) -> MobiVidTransformer3DModel:
    """Our transformer with the weights of a folder (see `find_transformer`), in eval mode.

    `dtype` is of the weights; None keeps the file's, and what has it stays mapped. `rope_scale` is LTX-Video's
    `rope_interpolation_scale` of the clips; None: what the folder says, else that of 25 frames a second. A
    CheckpointError names a tensor that is missing, left over or of another shape.
    """
    source = find_transformer(folder)
    stored, theirs = stored_tensors(source.folder), source.config["_class_name"] == layout.CLASS
    scale = rope_scale or source.config.get("rope_scale") or (layout.ROPE_SCALE if theirs else None)
    theta = source.config.get("rope_theta", 10_000.0)
    model = layout.empty_model(source.sizes, rope_theta=theta, rope_scale=scale and list(scale))
    named = {name: layout.their_name(name) if theirs else name for name in model.state_dict()}
    _check_names(source.folder, set(named.values()), set(stored))
    if dtype is None:
        dtype = stored[named["proj_in.weight"]].dtype
        if dtype not in _TYPES:
            dtype = torch.float32 if dtype == torch.float64 else torch.bfloat16
    state = {}
    for name, wanted in model.state_dict().items():
        value = stored[named[name]]
        if theirs:
            with contextlib.suppress(RuntimeError):  # rows that are no whole number of heads
                value = layout.ours(name, value, source.sizes.head_dim)
        if value.shape != wanted.shape:
            raise CheckpointError(
                f"{named[name]} in {source.folder} is {tuple(value.shape)}; its config says {tuple(wanted.shape)}"
            )
        state[name] = value.to(dtype)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def _check_names(folder: Path, wanted: set[str], found: set[str]) -> None:
    for what, names in (("lacks", wanted - found), ("has, unlike its config,", found - wanted)):
        if names:
            some = ", ".join(sorted(names)[:2]) + (" ..." if len(names) > 2 else "")
            raise CheckpointError(f"the checkpoint in {folder} {what} {len(names)} tensors: {some}")


def computing_dtype(folder: Path, device: torch.device, stream: bool = False) -> torch.dtype | None:
    """float32 where a processor computes it faster than the checkpoint's half precision; None keeps the file's type.

    Many processors emulate bfloat16, ten times slower than float32 and more, so both are timed; prints the reason.
    With `stream`, blocks are read from disk as they are used: the file's type stays.
    """
    source = find_transformer(folder)
    stored = next(iter(stored_tensors(source.folder).values())).dtype
    if device.type != "cpu" or stream or stored not in (torch.bfloat16, torch.float16):
        return None
    precision = choose(("linear",))
    needed, free = 4 * parameter_cost(source.sizes).total(source.sizes), psutil.virtual_memory().available
    if precision.bf16 or needed > _MEMORY_SHARE * free:
        room = "" if precision.bf16 else f", but float32 needs {needed / 1e9:.1f} of {free / 1e9:.1f} GB: kept"
        print(f"computing in the file's type: {precision.reason}{room}")
        return None
    print(f"computing in float32: {precision.reason}")
    return torch.float32


def save_transformer(model: MobiVidTransformer3DModel, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and one safetensors file, straight from the tensors and in one move each."""
    state = {k: v.detach().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as part:
        save_file(state, part, metadata={"format": "pt"})
    config = {k: v for k, v in model.config.items() if not k.startswith("_")}
    write_json(folder / "config.json", config | {"_class_name": type(model).__name__})


def on_device(
    model: MobiVidTransformer3DModel, device: torch.device, *, stream: bool = False
) -> MobiVidTransformer3DModel:
    """A frozen model from `load_transformer`, its tensors still mapped files, on the device that computes.

    With `stream`, blocks stay on disk and each is moved to the device when it is used (Accelerate's offloading): the
    memory of one block, at the cost of reading all of them in each pass.
    """
    if not stream:
        return model.to(device)
    for block in model.blocks:
        cpu_offload(block, device, state_dict=block.state_dict())
    for name, child in model.named_children():
        if name != "blocks":
            child.to(device)
    model.scale_shift_table.data = model.scale_shift_table.data.to(device)
    return model
