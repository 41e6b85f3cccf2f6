"""Captioned clips, rendered or your own, encoded once: the training data of the diffusion model.

Simplified: latents of all clips are held in memory (0.01 MB a clip); paper-scale training wants them in shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from mobivid_core.data.captioned import captioned_clips
from mobivid_core.data.captions import TRAIN_WORDINGS, ClipLabel, caption
from mobivid_core.data.folder import FolderReport
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.data.video_io import frames_to_clip
from mobivid_core.errors import VideoError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.models.text import MAX_LENGTH, TEXT_DIM, encode_text, load_text_encoder, load_tokenizer, token_states
from mobivid_core.models.vae import MobiVidVAE

#: Captions of a training clip: encoding more of them takes longer than they help.
WORDINGS_A_CLIP = 2
#: Clips encoded together.
_BATCH = 16
_WORDING_STRIDE = 197  # shares no factor with the number of wordings, so that a clip's wordings differ


@dataclass(frozen=True)
class LatentDataset:
    """Normalised latents with token states; captions repeat: `text[caption_of[n]]` belongs to `latents[n]`."""

    latents: Tensor  # (N, C, t, h, w) float16
    text: Tensor  # (U, L, D) float16 token states of the distinct captions
    mask: Tensor  # (U, L) bool, True on real tokens
    caption_of: Tensor  # (N, K) int64, K wordings of each clip's caption
    labels: list[ClipLabel]
    null_text: Tensor  # (1, L, D) float32 and `null_mask` (1, L): the empty caption
    null_mask: Tensor

    @classmethod
    def of(cls, latents: Tensor, captions: Sequence[Sequence[str]], labels: list[ClipLabel]) -> LatentDataset:
        """Latents (N, C, t, h, w) and captions of each; fewer ones are repeated in turn, so that rows are as long."""
        distinct = sorted({words for row in captions for words in row})
        place = {words: i for i, words in enumerate(distinct)}
        most = max(map(len, captions))
        rows = [[place[row[k % len(row)]] for k in range(most)] for row in captions]
        text, mask = _encode_many(distinct, latents.device)
        return cls(latents, text, mask, torch.tensor(rows), labels, *encode_text([""]))

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, C, t, h, w), text (B, L, D) float32, mask (B, L); with a generator, a random wording each."""
        device = self.latents.device
        indices, wording = indices.to(device), torch.zeros(len(indices), dtype=torch.long)
        if generator:
            many, shape = self.caption_of.shape[1], wording.shape
            wording = torch.randint(many, shape, generator=generator, device=generator.device)
        captions = self.caption_of[indices, wording.to(device)]
        return self.latents[indices].float(), self.text[captions].float(), self.mask[captions]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch of `size` clips, each with a random wording."""
        chosen = torch.randint(len(self), (size,), generator=generator, device=generator.device)
        return self.batch(chosen, generator)


@torch.no_grad()
def latent_dataset(
    vae: MobiVidVAE,
    *,
    split: str,
    count: int,
    frames: int,
    size: int,
    start: int = 0,
    cache: Path | None = None,
    progress: bool = True,
) -> LatentDataset:
    """Render, encode and caption clips `start` to `start + count` of a split, on the VAE's device.

    The folder `cache` keeps the latents, by the content of the VAE and the request; None keeps none.
    """
    file = cache / f"{split}-{_key(vae, split, start, count, frames, size)}.safetensors" if cache else None
    latents, indices = (read_tensors(file) or {}).get("latents"), range(start, start + count)
    if latents is None:
        vae.eval()
        batch, shape = _BATCH if vae.device.type == "cpu" else 8 * _BATCH, vae.latent_shape(frames, size, size)
        latents = torch.empty(count, *shape, dtype=torch.float16, device=vae.device)
        starts = range(0, count, batch)
        for i in tqdm(starts, desc=f"encoding {split} clips", disable=not progress, ascii=True, mininterval=2):
            drawn = render_clips(split, indices[i : i + batch], frames=frames, size=size, device=vae.device)
            latents[i : i + batch] = vae.encode_latents(drawn.clips)
        if file:
            write_bytes(file, save({"latents": latents}))
    return with_captions(latents.to(vae.device), [label_of(split, i) for i in indices])


def with_captions(latents: Tensor, labels: list[ClipLabel], wordings: int = WORDINGS_A_CLIP) -> LatentDataset:
    """Attach captions to latents (N, C, t, h, w): each clip's own wording and some more."""
    # a clip's own wording comes first: it is the one that is used without a generator
    captions = [[caption(replace(x, wording=w)) for w in spread_wordings(x.wording, wordings)] for x in labels]
    return LatentDataset.of(latents, captions, labels)


@torch.no_grad()
def captioned_latents(
    vae: MobiVidVAE, source: Path | str, *, frames: int, size: int
) -> tuple[LatentDataset, FolderReport]:
    """Encode `captioned_clips`: data without `labels`, and what was used and skipped; VideoError without any clip."""
    vae.eval()
    report, latents, captions = FolderReport(Path(source)), [], []
    for video in captioned_clips(source, report, frames=frames, size=size):
        clips = torch.stack([frames_to_clip(clip) for clip in video.clips])
        latents += [vae.encode_latents(part).half() for part in clips.split(_BATCH)]
        captions += [video.captions] * len(clips)
    if not latents:
        raise VideoError(f"no clip of {frames} frames in this source. {report}")
    return LatentDataset.of(torch.cat(latents), captions, []), report


def _encode_many(captions: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """States (N, L, D) float16, zero at padding, and mask (N, L) bool: `encode_text` for many, without its cache."""
    states = torch.zeros(len(captions), MAX_LENGTH, TEXT_DIM, dtype=torch.float16, device=device)
    mask = torch.zeros(len(captions), MAX_LENGTH, dtype=torch.bool, device=device)
    tokenizer, encoder = load_tokenizer(), load_text_encoder().to(device)
    tokens = torch.tensor([len(ids) for ids in tokenizer(captions)["input_ids"]])
    batch = 64 if device.type == "cpu" else 2048
    for rows in tokens.argsort().split(batch):  # of about one length: padding costs as much as words
        longest = min(int(tokens[rows].max()), MAX_LENGTH)
        found = token_states([captions[i] for i in rows], tokenizer, encoder, longest)
        states[rows.to(device), :longest], mask[rows.to(device), :longest] = found[0].half(), found[1]
    encoder.to("cpu")
    return states, mask


def spread_wordings(own: int, count: int) -> list[int]:
    """A clip's own wording and `count` - 1 others of training, spread over them."""
    return [(own + k * _WORDING_STRIDE) % TRAIN_WORDINGS for k in range(count)]


def _key(vae: MobiVidVAE, *request: object) -> str:
    digest = hashlib.sha256(repr(request).encode())
    for value in vae.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
