"""The app's loop over its packages, run on any machine: caption to clip through text encoder, steps and decoder.

Paper: the on-device section (text encoder, four transformer steps, light decoder). An app does this in Swift; here it
runs on the executor, which allows comparing whole clips with torch without a phone, and seeing on clips what smaller
weights cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.coreml.graphs import additive
from mobivid_core.coreml.mil import Program, execute
from mobivid_core.coreml.packages import folder_bytes, load_program
from mobivid_core.coreml.steps import DiTStep
from mobivid_core.errors import ExportError
from mobivid_core.flow.sampling import solver_path
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE


@dataclass(frozen=True)
class App:
    """The packages of one bundle, and the host's tables from `bundle.timestep_tables`."""

    text_encoder: Program
    steps: Sequence[Program]  # the transformer, whole or in parts, in order
    decoder: Program
    tables: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path, tables: dict[str, Tensor], bits: int | str = 16) -> App:
        """Read the packages of a folder made by `export`; an ExportError if one is missing or unreadable.

        `bits` are those of a weight of transformer and decoder, or "mixed" (`mixed_bits.mixed_app`); the text encoder
        keeps 16.
        """
        text_encoder, decoder = (_files(folder, n, b)[0] for n, b in (("text_encoder", 16), ("decoder", bits)))
        steps = [load_program(part) for part in _files(folder, "dit", bits)]
        return cls(load_program(text_encoder), steps, load_program(decoder), tables)

    def clip(self, caption: str, noise: Tensor) -> Tensor:
        """One clip (1, 3, T, H, W) of a caption and its noise (1, C, t, h, w), values in float16 between operations."""
        ids, mask = tokens(caption)
        text = execute(self.text_encoder, {"input_ids": ids, "text_mask": additive(mask)}, "fp16")["states"]
        latents = sample(package_step(self.steps, "fp16"), noise, text, mask, self.tables)
        return execute(self.decoder, {"latents": latents}, "fp16")["clip"]


def tokens(caption: str) -> tuple[Tensor, Tensor]:
    """Token ids (1, L) int32 of a caption, padded, and the mask (1, L) that is True for real tokens."""
    from mobivid_core.models.text import MAX_LENGTH, load_tokenizer

    made = load_tokenizer()(
        [caption], padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    return made["input_ids"].int(), made["attention_mask"].bool()


def torch_clip(
    model: MobiVidTransformer3DModel, vae: MobiVidVAE, caption: str, noise: Tensor, tables: dict[str, Tensor]
) -> Tensor:
    """The same clip (1, 3, T, H, W) by torch in float32, with the models as trained: what packages are measured by."""
    from mobivid_core.models.text import encode_text

    text, mask = encode_text([caption])
    with torch.no_grad():
        return vae.decode_latents(sample(DiTStep(model, tuple(noise.shape[2:])), noise, text, mask, tables))


def sample(
    step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], noise: Tensor, text: Tensor, mask: Tensor,
    tables: dict[str, Tensor],
) -> Tensor:  # fmt: skip
    """The app's loop: Euler steps of the velocity from noise (1, C, t, h, w) to normalised latents of that shape.

    A step, by a torch graph or packages, takes latents, token states (1, L, D), what the mask (1, L) of real tokens
    adds to the scores, and a row of `timestep_tables`.
    """
    masked, rows = additive(mask), iter(tables["modulation"].split(1))
    return solver_path(lambda x, sigma: step(x, text, masked, next(rows)), noise, tables["sigmas"])[-1]


def package_step(parts: Sequence[Program], mode: str) -> Callable[..., Tensor]:
    """A transformer package, or the chain of its parts in order, as `sample`'s step."""

    def step(latents: Tensor, text: Tensor, text_mask: Tensor, modulation: Tensor) -> Tensor:
        x, used = latents, 0
        for program in parts:
            taken = program.inputs[3].shape[1]
            given = (x, text, text_mask, modulation[:, used : used + taken])
            names = [slot.name for slot in program.inputs]
            made = execute(program, dict(zip(names, given, strict=True)), mode)
            used += taken
            x, text = (*made.values(), text)[:2]
        return x

    return step


def psnrs(clips: Tensor, reference: Tensor) -> np.ndarray:
    """Peak signal-to-noise ratio of (N, 3, T, H, W) clips in [-1, 1] in decibels, infinite if equal: (N,)."""
    pairs = zip(clips, reference, strict=True)
    return np.array([10 * torch.log10(4 / (a - b).square().mean()).item() for a, b in pairs])


def sizes_mb(folder: Path, choices: Iterable[int | str]) -> dict[int | str, float]:
    """Megabytes of transformer and decoder for each choice of bits, as `App.load` finds them."""
    return {b: sum(folder_bytes(p) for n in ("dit", "decoder") for p in _files(folder, n, b)) / 1e6 for b in choices}


def _files(folder: Path, name: str, bits: int | str) -> list[Path]:
    """Packages of a part: the whole, or its chunks in order."""
    end = "" if bits == 16 else f"_{bits}bit" if isinstance(bits, int) else f"_{bits}"
    return sorted(folder.glob(f"{name}_part*{end}.mlpackage")) or [folder / f"{name}{end}.mlpackage"]


def weight_cost(
    clips: Mapping[int | str, Tensor], reference: Tensor, megabytes: Mapping[int | str, float], judge: Judge,
    truth: Tensor,
) -> pd.DataFrame:  # fmt: skip
    """What smaller weights cost, seen on clips of the same captions and noise.

    Args:
        clips: Bits of a weight, or a choice with a name -> (N, 3, T, H, W) through the packages.
        reference: The same clips by torch in float32.
        megabytes: Bits -> size of the packages that differ, from `sizes_mb`.
        judge: Reads the captions' attributes back.
        truth: (N, 4) classes that the captions ask for.

    Returns:
        One row a number of bits: size, PSNR against torch (median and worst clip), share of clips that the judge reads
        as torch's, and share with all attributes as asked for.

    Raises:
        ExportError: Numbers of clips differ.
    """
    if any(c.shape != reference.shape for c in clips.values()):
        raise ExportError("the clips to compare differ in number or size")
    said = judge.predict(reference)
    rows = []
    for bits, made in clips.items():
        each = psnrs(made, reference)
        read = judge.predict(made)
        rows.append({
            "bits": bits, "MB": megabytes[bits], "PSNR to torch, median (dB)": float(np.median(each)),
            "worst clip (dB)": each.min(), "read as torch's": (read == said).all(1).float().mean().item(),
            "all attributes right": accuracy(read, truth)["all"].mean().item(), "clips": len(made),
        })  # fmt: skip
    return pd.DataFrame(rows)
