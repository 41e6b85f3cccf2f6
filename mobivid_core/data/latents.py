"""Captioned clips, rendered and encoded once: the training data of the diffusion model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from mobivid_core.data.captions import TRAIN_WORDINGS, ClipLabel, caption
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.models.text import MAX_LENGTH, TEXT_DIM, encode_text, load_text_encoder, load_tokenizer, token_states
from mobivid_core.models.vae import MobiVidVAE

#: Captions of a training clip: encoding more of them takes longer than they help.
WORDINGS_A_CLIP = 2
_WORDING_STRIDE = 197  # shares no factor with the number of wordings, so that a clip's wordings differ


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
            else torch.randint(self.caption_of.shape[1], (len(indices),), generator=generator, device=generator.device)
        )
        device = self.latents.device
        indices = indices.to(device)
        captions = self.caption_of[indices, wording.to(device)]
        return self.latents[indices].float(), self.text[captions].float(), self.mask[captions]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch of `size` clips, each with a random wording."""
        chosen = torch.randint(len(self), (size,), generator=generator, device=generator.device)
        return self.batch(chosen, generator)

    def to(self, device: torch.device | str) -> LatentDataset:
        """All tensors on `device`."""
        names = ("latents", "text", "mask", "caption_of", "null_text", "null_mask")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


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


def with_captions(
    latents: Tensor,
    labels: list[ClipLabel],
    wordings: int = WORDINGS_A_CLIP,
    device: torch.device | str = "cpu",
    batch: int = 64,
) -> LatentDataset:
    """Attach captions to latents (N, C, t, h, w): each clip's own wording and some more; the rest as `encode_many`."""
    # a clip's own wording comes first: it is the one that is used without a generator
    words = [[caption(replace(x, wording=w)) for w in spread_wordings(x.wording, wordings)] for x in labels]
    distinct = sorted({w for row in words for w in row})
    place = {w: i for i, w in enumerate(distinct)}
    text, mask = encode_many(distinct, device, batch)
    null_text, null_mask = encode_text([""], max_length=MAX_LENGTH)
    rows = torch.tensor([[place[w] for w in row] for row in words])
    return LatentDataset(latents, text, mask, rows, labels, null_text, null_mask)


def encode_many(captions: list[str], device: torch.device | str = "cpu", batch: int = 64) -> tuple[Tensor, Tensor]:
    """`encode_text` in half precision, without its cache: a dataset's captions are many, and each is kept once.

    Args:
        captions: N captions.
        device: Where to encode, and where the result lies.
        batch: Captions encoded together.

    Returns:
        States (N, L, D) float16, zero at padding, and mask (N, L) bool.
    """
    states = torch.zeros(len(captions), MAX_LENGTH, TEXT_DIM, dtype=torch.float16, device=device)
    mask = torch.zeros(len(captions), MAX_LENGTH, dtype=torch.bool, device=device)
    tokenizer, encoder = load_tokenizer(), load_text_encoder().to(device)
    tokens = torch.tensor([len(ids) for ids in tokenizer(captions)["input_ids"]])
    for rows in tokens.argsort().split(batch):  # of about one length: padding costs as much as words
        longest = min(int(tokens[rows].max()), MAX_LENGTH)
        found = token_states([captions[i] for i in rows], tokenizer, encoder, longest)
        states[rows.to(device), :longest], mask[rows.to(device), :longest] = found[0].half(), found[1]
    encoder.to("cpu")
    return states, mask


def spread_wordings(own: int, count: int) -> list[int]:
    """A clip's own wording and `count` - 1 others of training, spread over them."""
    return [(own + k * _WORDING_STRIDE) % TRAIN_WORDINGS for k in range(count)]


@torch.no_grad()
def _encode(vae: MobiVidVAE, split: str, indices: range, frames: int, size: int, progress: bool) -> Tensor:
    vae.eval()
    latents = torch.empty(len(indices), *vae.latent_shape(frames, size, size), dtype=torch.float16)
    for i in tqdm(
        range(0, len(indices), 16), desc=f"encoding {split} clips", disable=not progress, ascii=True, mininterval=2
    ):
        clips = render_clips(split, indices[i : i + 16], frames=frames, size=size).clips
        latents[i : i + 16] = vae.encode_latents(clips)
    return latents


def _key(vae: MobiVidVAE, *request: object) -> str:
    digest = hashlib.sha256(repr(request).encode())
    for value in vae.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
