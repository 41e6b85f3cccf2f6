"""Latents and text states in webdataset shards: tar files whose samples are one safetensors and one JSON each.

A folder holds `shard-00000.tar`, ..., `null.safetensors` (the empty caption) and `shards.json` (clip size, frame rate,
widths). Samples are found by an index of the tar files, so that a training step reads its own batch and nothing else.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.files import read_tensors, replacing, write_bytes, write_json
from mobivid_core.models.config import DiTConfig
from mobivid_core.sensitivity.calibration import CalibrationSet, calibration_set

FACTS, NULL = "shards.json", "null.safetensors"
#: Frames and pixels (t, h, w) that a latent cell of LTX-Video's VAE stands for.
RATIO = (8, 32, 32)


@dataclass(frozen=True)
class ShardFacts:
    """What all samples of a folder share."""

    shape: tuple[int, int, int, int]  # (C, t, h, w) of a latent
    text_tokens: int  # L
    text_dim: int  # D
    frame_rate: float  # frames a second of the clips
    ratio: tuple[int, int, int]  # frames and pixels (t, h, w) that a latent cell stands for
    source: str  # one line on where they come from

    @property
    def rope_scale(self) -> tuple[float, float, float]:
        """LTX-Video's `rope_interpolation_scale` of these clips."""
        return self.ratio[0] / self.frame_rate, float(self.ratio[1]), float(self.ratio[2])


#: One clip: latents (C, t, h, w) normalised, text (L, D), mask (L,) bool, and what is known of it.
Sample = tuple[Tensor, Tensor, Tensor, dict]


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"shard-{index:05d}.tar"


def write_shard(path: Path, samples: Sequence[Sample]) -> None:
    """Write a shard in one move; latents and text are stored in 16 bits."""
    with replacing(path) as part, tarfile.open(part, "w") as tar:
        for i, (latents, text, mask, facts) in enumerate(samples):
            text = text if text.dtype in (torch.bfloat16, torch.float16) else text.half()
            tensors = {"latents": latents.half(), "text": text, "mask": mask.bool()}
            content = save({k: v.cpu().contiguous() for k, v in tensors.items()})
            for suffix, data in (("safetensors", content), ("json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(f"{path.stem}-{i:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_facts(folder: Path, facts: ShardFacts, null_text: Tensor, null_mask: Tensor) -> None:
    """Write what all shards share; a ParameterError where the folder was begun with other settings."""
    known = folder / FACTS
    if known.is_file() and _facts(folder) != facts:
        raise ParameterError(f"{folder} was begun with other settings ({_facts(folder)}); give another folder")
    tensors = {"text": null_text.cpu().contiguous(), "mask": null_mask.bool().cpu().contiguous()}
    write_bytes(folder / NULL, save(tensors))
    write_json(known, asdict(facts))


def _facts(folder: Path) -> ShardFacts:
    try:
        values = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return ShardFacts(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"no readable {FACTS} in {folder} ({error}); make shards with the encode command"
        ) from error


class LatentShards:
    """Samples of a folder by index; stands in for a `LatentDataset` where batches are drawn.

    `sizes` are those of the model that is to take the samples. Raises a CheckpointError where there is no shard or one
    that cannot be read, a ParameterError where the samples have another width than the model.
    """

    def __init__(self, folder: Path, sizes: DiTConfig | None = None) -> None:
        self.facts = _facts(folder)
        if sizes is not None:
            got, wanted = (self.facts.shape[0], self.facts.text_dim), (sizes.in_channels, sizes.text_dim)
            if got != wanted:
                raise ParameterError(
                    f"the data in {folder} have {got[0]} latent channels and text of width {got[1]}; the model takes "
                    f"{wanted[0]} and {wanted[1]}: encode with the pipeline that the model belongs to"
                )
        self._places = [place for shard in sorted(folder.glob("shard-*.tar")) for place in _places(shard)]
        if not self._places:
            raise CheckpointError(f"no samples in {folder}; make some with the encode command")
        null = read_tensors(folder / NULL)
        if not null:
            raise CheckpointError(f"{folder / NULL} is missing or torn; encode again to write it")
        self.null_text, self.null_mask = null["text"].float(), null["mask"]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (C, t, h, w), text (L, D), both float32, and mask (L,)."""
        shard, offset, size = self._places[index]
        with shard.open("rb") as stream:
            stream.seek(offset)
            content = stream.read(size)
        try:
            found = load(content)
            latents, text, mask = found["latents"], found["text"], found["mask"]
            if (*latents.shape, *text.shape) != (*self.facts.shape, self.facts.text_tokens, self.facts.text_dim):
                raise ValueError(f"{tuple(latents.shape)} with text {tuple(text.shape)}, unlike {FACTS}")
        except (SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"a sample of {shard} is damaged ({error}); delete the shard and encode again"
            ) from error
        return latents.float(), text.float(), mask

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Samples at `indices`, stacked; each clip has one caption, so the generator is not needed."""
        latents, text, mask = map(torch.stack, zip(*(self[int(i)] for i in indices), strict=True))
        return latents, text, mask

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch."""
        return self.batch(torch.randint(len(self), (size,), generator=generator), generator)

    def calibration(self, samples: int, seed: int = 0) -> CalibrationSet:
        """A fixed calibration set of random clips, read one by one."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:samples]
        null = (self.null_text, self.null_mask)
        return calibration_set(*self.batch(chosen), samples=samples, seed=seed, null=null)


def _places(shard: Path) -> Iterator[tuple[Path, int, int]]:
    """Where each sample's safetensors lies in a tar file."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [m for m in tar if m.name.endswith(".safetensors")]
        end = shard.stat().st_size
        if any(m.offset_data + m.size > end for m in members):
            raise tarfile.ReadError("it breaks off")
    except (OSError, tarfile.TarError) as error:
        raise CheckpointError(f"{shard} is no whole tar file ({error}); delete it and encode again") from error
    yield from ((shard, m.offset_data, m.size) for m in members)


def as_inputs(part: CalibrationSet, model: torch.nn.Module) -> CalibrationSet:
    """A calibration batch on a model's device, in its type; noise levels stay float32."""
    weight = next(model.parameters())
    typed = {k: getattr(part, k).to(weight.device, weight.dtype) for k in ("noisy", "text", "velocity")}
    return CalibrationSet(**typed, timestep=part.timestep.to(weight.device), mask=part.mask.to(weight.device))
