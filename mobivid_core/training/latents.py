"""Captioned clips, rendered and encoded once: what the diffusion model trains on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from mobivid_core.data.captions import TRAIN_WORDINGS, ClipLabel, caption
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.models.text import encode_text
from mobivid_core.models.vae import MobiVidVAE

_TOKENS = 26  # longest caption, in text tokens


@dataclass(frozen=True)
class LatentDataset:
    """Normalised latents with their captions' token states.

    Captions repeat, so token states are kept once each: `text[caption_of[n]]` belongs to `latents[n]`.

    Attributes:
        latents: (N, C, t, h, w) float16.
        text: (U, L, D) float16 token states of the distinct captions.
        mask: (U, L) bool, True on real tokens.
        caption_of: (N, K) int64, K wordings of each clip's caption.
        labels: What each clip shows.
        null_text: (1, L, D) float32 and `null_mask` (1, L): the empty caption.
        null_mask: See `null_text`.
    """

    latents: Tensor
    text: Tensor
    mask: Tensor
    caption_of: Tensor
    labels: list[ClipLabel]
    null_text: Tensor
    null_mask: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, C, t, h, w), text (B, L, D) float32, mask (B, L); with a generator, a random wording each."""
        wording = (
            torch.zeros(len(indices), dtype=torch.long)
            if generator is None
            else torch.randint(self.caption_of.shape[1], (len(indices),), generator=generator)
        )
        captions = self.caption_of[indices, wording]
        return self.latents[indices].float(), self.text[captions].float(), self.mask[captions]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch of `size` clips, each with a random wording."""
        return self.batch(torch.randint(len(self), (size,), generator=generator), generator)


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
    """Render, encode and caption clips `start` to `start + count` of a split.

    Args:
        vae: Encodes the clips.
        split: See `render_clips`.
        count: Number of clips N.
        frames: Frames a clip.
        size: Height and width in pixels.
        start: Index of the first clip.
        cache: Folder that keeps the latents, by the content of the VAE and the request; None keeps none.
        progress: Show a progress bar.
    """
    file = cache / f"{split}-{_key(vae, split, start, count, frames, size)}.safetensors" if cache else None
    latents = (read_tensors(file) or {}).get("latents")
    if latents is None:
        latents = _encode(vae, split, range(start, start + count), frames, size, progress)
        if file:
            write_bytes(file, save({"latents": latents}))
    return with_captions(latents, [label_of(split, i) for i in range(start, start + count)])


def with_captions(latents: Tensor, labels: list[ClipLabel]) -> LatentDataset:
    """Attach captions, in all training wordings, to latents (N, C, t, h, w)."""
    words = [
        [caption(ClipLabel(x.shape, x.colour, x.motion, x.background, w)) for w in range(TRAIN_WORDINGS)]
        for x in labels
    ]
    distinct = sorted({w for row in words for w in row})
    place = {w: i for i, w in enumerate(distinct)}
    text, mask = encode_text(distinct, max_length=_TOKENS)
    null_text, null_mask = encode_text([""], max_length=_TOKENS)
    # a clip's own wording comes first: it is the one that is used without a generator
    rows = [
        [place[row[x.wording]]] + [place[w] for i, w in enumerate(row) if i != x.wording]
        for x, row in zip(labels, words, strict=False)
    ]
    return LatentDataset(latents, text.half(), mask, torch.tensor(rows), labels, null_text, null_mask)


@torch.no_grad()
def _encode(vae: MobiVidVAE, split: str, indices: range, frames: int, size: int, progress: bool) -> Tensor:
    vae.eval()
    parts = []
    for i in tqdm(
        range(0, len(indices), 16), desc=f"encoding {split} clips", disable=not progress, ascii=True, mininterval=2
    ):
        clips = render_clips(split, indices[i : i + 16], frames=frames, size=size).clips
        parts.append(vae.encode_latents(clips).half())
    return torch.cat(parts)


def _key(vae: MobiVidVAE, *request: object) -> str:
    digest = hashlib.sha256(repr(request).encode())
    for value in vae.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
