"""Videos to shards: the pipeline's own VAE and text encoder, each clip once.

Resumable: a finished shard is never made again. Under `accelerate launch` or torchrun every process makes its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from mobivid_core.ltx.shards import NULL, RATIO, Sample, ShardFacts, shard_name, write_facts, write_shard
from mobivid_core.models.counts import latent_grid
from mobivid_core.train.distributed import processes

if TYPE_CHECKING:
    from diffusers import LTXPipeline

#: Samples of a shard of packed latents.
PACKED = 64


def load_encoders(pipeline: Path, dtype: torch.dtype, device: torch.device | str) -> LTXPipeline:
    """A pipeline folder's VAE, tokenizer and text encoder, or a CheckpointError; its transformer is not read."""
    import diffusers

    lacking = [part for part in ("vae", "text_encoder", "tokenizer") if not (pipeline / part).is_dir()]
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


def encode_text(pipe: LTXPipeline, captions: Sequence[str], tokens: int) -> tuple[Tensor, Tensor]:
    """States (N, tokens, D) and mask (N, tokens) bool, as the pipeline gives them to its transformer."""
    states, mask, *_ = pipe.encode_prompt(list(captions), do_classifier_free_guidance=False, max_sequence_length=tokens)
    return states, mask.bool()


def encode_clip(pipe: LTXPipeline, clip: Tensor) -> Tensor:
    """(3, T, H, W) in [-1, 1] -> normalised latents (C, t, h, w) float32: the mean of the VAE's distribution."""
    vae = pipe.vae
    found = vae.encode(clip[None].to(vae.device, vae.dtype)).latent_dist.mode().float()
    return pipe._normalize_latents(found, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)[0]


@torch.no_grad()
def encode(
    pipeline: Path, videos: Path, out: Path, *, frames: int, height: int, width: int, per_shard: int, per_file: int,
    tokens: int, dtype: torch.dtype, device: str,
) -> FolderReport:  # fmt: skip
    """Encode captioned videos (see `data.captioned`) into shards in `out`; what became of each that this process read.

    `frames`, `height` and `width` of a clip are 1 + a multiple, and multiples, of the VAE's ratios. A shard has the
    clips of `per_shard` videos, at most `per_file` of each, and captions of `tokens`. VAE and text encoder compute in
    `dtype` on `device`; "": Accelerate's choice. A VideoError where no video gave a clip.
    """
    me = processes()
    pipe = load_encoders(pipeline, dtype, device or me.device)
    ratio = (pipe.vae_temporal_compression_ratio, *(pipe.vae_spatial_compression_ratio,) * 2)
    shape = (pipe.vae.config.latent_channels, *latent_grid(frames, height, width, ratio))
    null = encode_text(pipe, [""], tokens)
    facts = ShardFacts(shape, tokens, null[0].shape[-1], float(FRAME_RATE), ratio, f"videos of {videos.name}")
    if me.is_main_process:
        write_facts(out, facts, *null)
    report, began, done = FolderReport(videos), time.perf_counter(), 0

    def samples_of(name: str, path: Path, captions: tuple[str, ...]) -> Iterator[Sample]:
        clips = report.read(path, name, frames, (height, width), per_file)
        if not clips:
            return
        states, mask = encode_text(pipe, captions, tokens)
        for k, clip in enumerate(clips):
            word = k % len(captions)
            latents = encode_clip(pipe, frames_to_clip(clip.pixels))
            yield latents, states[word], mask[word], {"video": name, "clip": k, "caption": captions[word]}

    listing = captioned_videos(videos, report)
    for index in count():
        first = next(listing, None)
        if first is None:
            break
        shard = out / shard_name(index)
        mine = index % me.num_processes == me.process_index and not shard.exists()
        samples: list[Sample] = []
        for video in chain([first], islice(listing, per_shard - 1)):
            if mine:
                samples += samples_of(*video)
        if samples:
            write_shard(shard, samples)
            done += len(samples)
            rate = (time.perf_counter() - began) / done
            print(f"{shard.name}: {len(samples)} clips; {rate:.1f} s a clip so far")
    if not done and not any(out.glob("shard-*.tar")):
        raise VideoError(f"no clip of {frames} frames: {report}")
    return report


def pack(latents: Path, out: Path, frame_rate: float) -> int:
    """Shards from latents of your own, of LTX-Video's VAE; returns the number of samples.

    `latents` holds `NAME.safetensors` with `latents`, `text` and `mask` each, and `null.safetensors` (`text` (1, L, D),
    `mask` (1, L) of ""). A CheckpointError names a file that is missing, torn, or lacks a tensor; a ParameterError one
    of another shape.
    """
    files = sorted(p for p in latents.glob("*.safetensors") if p.name != NULL)
    if not files:
        raise CheckpointError(f"no .safetensors with latents in {latents}")
    null, facts = _tensors(latents / NULL, ("text", "mask")), None
    for start in range(0, len(files), PACKED):
        samples: list[Sample] = []
        for path in files[start : start + PACKED]:
            found = _tensors(path, ("latents", "text", "mask"))
            own = (tuple(found["latents"].shape), *found["text"].shape)
            if facts is None:
                facts = ShardFacts(*own, frame_rate, RATIO, f"latents of {latents.name}")
                write_facts(out, facts, null["text"], null["mask"])
            elif own != (facts.shape, facts.text_tokens, facts.text_dim):
                raise ParameterError(f"{path} holds {own}, the files before it {facts.shape}: one clip size a folder")
            samples.append((found["latents"], found["text"], found["mask"], {"video": path.stem}))
        target = out / shard_name(start // PACKED)
        if not target.exists():
            write_shard(target, samples)
    return len(files)


def _tensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    found = read_tensors(path) or {}
    if not found.keys() >= set(names):
        raise CheckpointError(f"{path} is missing, torn, or lacks one of {', '.join(names)}")
    return found
