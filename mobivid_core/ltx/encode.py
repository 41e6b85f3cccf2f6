"""Videos to shards: the pipeline's own VAE and text encoder, each clip once.

Resumable: a finished shard is never made again. Under `accelerate launch` or torchrun every process makes its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mobivid_core.data.captioned import captioned_videos
from mobivid_core.data.folder import FolderReport
from mobivid_core.data.video_io import FRAME_RATE, frames_to_clip
from mobivid_core.errors import CheckpointError, ParameterError, VideoError
from mobivid_core.files import read_tensors
from mobivid_core.ltx.shards import Sample, ShardFacts, shard_name, write_facts, write_shard
from mobivid_core.train.distributed import processes

if TYPE_CHECKING:
    from diffusers import LTXPipeline

#: Tokens of a caption, as `LTXPipeline` pads it.
TEXT_TOKENS = 128
#: Samples of a shard of packed latents.
PACKED = 64


def load_encoders(pipeline: Path, dtype: torch.dtype, device: torch.device | str) -> LTXPipeline:
    """A pipeline folder's VAE, tokenizer and text encoder; its transformer is not read.

    Raises:
        CheckpointError: The folder is no LTX pipeline, or lacks one of them.
    """
    import diffusers

    lacking = [part for part in ("vae", "text_encoder", "tokenizer") if not (Path(pipeline) / part).is_dir()]
    if lacking:
        raise CheckpointError(
            f"{pipeline} has no {' and no '.join(lacking)}: give a whole diffusers pipeline folder, or your own "
            "latents with --latents"
        )
    try:
        pipe = diffusers.LTXPipeline.from_pretrained(pipeline, transformer=None, dtype=dtype)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{pipeline} is no readable LTX pipeline ({error})") from error
    return pipe.to(device)


@torch.no_grad()
def encode_text(pipe: LTXPipeline, captions: list[str], tokens: int = TEXT_TOKENS) -> tuple[Tensor, Tensor]:
    """States (N, tokens, D) and mask (N, tokens) bool, as the pipeline gives them to its transformer."""
    states, mask, *_ = pipe.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=tokens)
    return states, mask.bool()


@torch.no_grad()
def encode_clip(pipe: LTXPipeline, clip: Tensor) -> Tensor:
    """(3, T, H, W) in [-1, 1] -> normalised latents (C, t, h, w) float32: the mean of the VAE's distribution."""
    vae = pipe.vae
    found = vae.encode(clip[None].to(vae.device, vae.dtype)).latent_dist.mode().float()
    return pipe._normalize_latents(found, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)[0]


def encode(
    pipeline: Path, videos: Path, out: Path, *, frames: int, height: int, width: int, per_shard: int = 16,
    per_file: int = 8, tokens: int = TEXT_TOKENS, dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str | None = None,
) -> FolderReport:  # fmt: skip
    """Encode a folder of captioned videos into shards of `per_shard` videos each.

    Args:
        pipeline: A diffusers LTX pipeline folder.
        videos: `captions.csv` with videos, or webdataset shards of them (see `data.captioned`).
        out: Folder of the shards.
        frames, height, width: Of a clip; 1 + a multiple, and multiples, of the VAE's ratios.
        per_file: Clips of a video at most.
        tokens: Tokens of a caption.
        device: Where VAE and text encoder compute, in `dtype`; None: Accelerate's choice.

    Returns:
        What became of each video that this process read.

    Raises:
        CheckpointError: See `load_encoders`.
        ParameterError: A clip size that the VAE cannot take, or a folder begun with other settings.
        VideoError: No video gave a clip.
    """
    me = processes()
    pipe = load_encoders(pipeline, dtype, device or me.device)
    ratio = (pipe.vae_temporal_compression_ratio, *(pipe.vae_spatial_compression_ratio,) * 2)
    if (frames - 1) % ratio[0] or height % ratio[1] or width % ratio[2]:
        raise ParameterError(
            f"clips of {frames} x {height} x {width} do not fit the VAE: frames must be 1 + a multiple of {ratio[0]}, "
            f"height and width multiples of {ratio[1]}"
        )
    null = encode_text(pipe, [""], tokens)
    shape = (pipe.vae.config.latent_channels, 1 + (frames - 1) // ratio[0], height // ratio[1], width // ratio[2])
    facts = ShardFacts(shape, tokens, null[0].shape[-1], float(FRAME_RATE), ratio, f"videos of {Path(videos).name}")
    if me.is_main_process:
        write_facts(out, facts, *null)
    report, began, done = FolderReport(Path(videos)), time.perf_counter(), 0
    listing = captioned_videos(videos, report)
    for index in count():
        first = next(listing, None)
        if first is None:
            break
        mine = index % me.num_processes == me.process_index and not (out / shard_name(index)).exists()
        samples: list[Sample] = []
        for name, path, captions in chain([first], islice(listing, per_shard - 1)):
            if mine:
                samples += _samples(pipe, name, path, captions, (frames, height, width), per_file, tokens, report)
        if samples:
            write_shard(out / shard_name(index), samples)
            done += len(samples)
            rate = (time.perf_counter() - began) / done
            print(f"{shard_name(index)}: {len(samples)} clips; {rate:.1f} s a clip so far")
    if not done and not any(out.glob("shard-*.tar")):
        raise VideoError(f"no clip of {frames} frames: {report}")
    return report


def _samples(
    pipe: LTXPipeline, name: str, path: Path, captions: tuple[str, ...], size: tuple[int, int, int], per_file: int,
    tokens: int, report: FolderReport,
) -> Iterator[Sample]:  # fmt: skip
    clips = report.read(path, name, size[0], size[1:], per_file)
    if not clips:
        return
    states, mask = encode_text(pipe, list(captions), tokens)
    for k, clip in enumerate(clips):
        word = k % len(captions)
        latents = encode_clip(pipe, frames_to_clip(clip.pixels))
        yield Sample(latents, states[word], mask[word], {"video": name, "clip": k, "caption": captions[word]})


def pack(latents: Path, out: Path, *, frame_rate: float, ratio: tuple[int, int, int]) -> int:
    """Shards from latents of your own; returns the number of samples.

    `latents` holds `NAME.safetensors` with `latents`, `text` and `mask` each, and `null.safetensors` (`text` (1, L, D),
    `mask` (1, L) of ""). `ratio` are the frames and pixels (t, h, w) of a latent cell.

    Raises:
        CheckpointError: A file is missing, torn, or lacks a tensor.
        ParameterError: Samples differ in shape.
    """
    files = sorted(p for p in Path(latents).glob("*.safetensors") if p.name != "null.safetensors")
    if not files:
        raise CheckpointError(f"no .safetensors with latents in {latents}")
    null = _tensors(Path(latents) / "null.safetensors", ("text", "mask"))
    facts = None
    for start in range(0, len(files), PACKED):
        samples = []
        for path in files[start : start + PACKED]:
            found = _tensors(path, ("latents", "text", "mask"))
            own = (tuple(found["latents"].shape), *found["text"].shape)
            if facts is None:
                facts = ShardFacts(*own, float(frame_rate), tuple(ratio), f"latents of {Path(latents).name}")
                write_facts(out, facts, null["text"], null["mask"])
            elif own != (facts.shape, facts.text_tokens, facts.text_dim):
                raise ParameterError(f"{path} holds {own}, the files before it {facts.shape}: one clip size a folder")
            samples.append(Sample(found["latents"], found["text"], found["mask"], {"video": path.stem}))
        target = out / shard_name(start // PACKED)
        if not target.exists():
            write_shard(target, samples)
    return len(files)


def _tensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    found = read_tensors(path) or {}
    if not found.keys() >= set(names):
        raise CheckpointError(f"{path} is missing, torn, or lacks one of {', '.join(names)}")
    return found
