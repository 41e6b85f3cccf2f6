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
    """What runs the three parts, and the host's tables from `bundle.timestep_tables`."""

    text_encoder: Callable[[Tensor, Tensor], Tensor]  # token ids and additive mask (1, L) to states (1, L, D)
    step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # as in `sample`
    decoder: Callable[[Tensor], Tensor]
    tables: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path, tables: dict[str, Tensor], bits: int | str = 16) -> App:
        """The packages of a folder made by `export`, on the executor with values in float16 between operations.

        `bits` are those of a weight of transformer and decoder, or "mixed" (`mixed_bits.mixed_app`); the text encoder
        keeps 16. An ExportError if a package is missing or unreadable.
        """
        wanted = (("text_encoder", 16), ("dit", bits), ("decoder", bits))
        text, steps, decoder = ([load_program(p) for p in _files(folder, name, b)] for name, b in wanted)
        return cls(
            lambda ids, mask: _called(text[0], "fp16", ids, mask)[0], package_step(steps, "fp16"),
            lambda latents: _called(decoder[0], "fp16", latents)[0], tables,
        )  # fmt: skip

    def clip(self, caption: str, noise: Tensor) -> Tensor:
        """One clip (1, 3, T, H, W) of a caption and its noise (1, C, t, h, w)."""
        ids, mask = tokens(caption)
        return self.decoder(sample(self.step, noise, self.text_encoder(ids, additive(mask)), mask, self.tables))


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
    rows = [program.inputs[3].shape[1] for program in parts]

    def step(x: Tensor, text: Tensor, text_mask: Tensor, modulation: Tensor) -> Tensor:
        for program, mine in zip(parts, modulation.split(rows, dim=1), strict=True):
            x, text = (*_called(program, mode, x, text, text_mask, mine), text)[:2]
        return x

    return step


def _called(program: Program, mode: str, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Outputs of a package on inputs in its own order."""
    return tuple(execute(program, dict(zip((s.name for s in program.inputs), inputs, strict=True)), mode).values())


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
        reference: The same clips by torch in float32; an ExportError if their number differs.
        megabytes: Bits -> size of the packages that differ, from `sizes_mb`.
        judge: Reads the captions' attributes back.
        truth: (N, 4) classes that the captions ask for.

    Returns:
        One row a number of bits: size, PSNR against torch (median and worst clip), share of clips that the judge reads
        as torch's, and share with all attributes as asked for.
    """
    if any(c.shape != reference.shape for c in clips.values()):
        raise ExportError("the clips to compare differ in number or size")
    said, rows = judge.predict(reference), []
    for bits, made in clips.items():
        each, read = psnrs(made, reference), judge.predict(made)
        rows.append({
            "bits": bits, "MB": megabytes[bits], "PSNR to torch, median (dB)": float(np.median(each)),
            "worst clip (dB)": each.min(), "read as torch's": (read == said).all(1).float().mean().item(),
            "all attributes right": accuracy(read, truth)["all"].mean().item(), "clips": len(made),
        })  # fmt: skip
    return pd.DataFrame(rows)
