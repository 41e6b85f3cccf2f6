"""Your own captioned videos, encoded once into the same data set as rendered clips.

    mobivid train teacher --data FOLDER

Simplified: latents of all clips are held in memory (0.01 MB a clip); paper-scale training wants them in shards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobivid_core.data.captioned import captioned_clips
from mobivid_core.data.folder import FolderReport
from mobivid_core.data.latents import LatentDataset
from mobivid_core.data.video_io import frames_to_clip
from mobivid_core.errors import VideoError
from mobivid_core.models.text import MAX_LENGTH, encode_text
from mobivid_core.models.vae import MobiVidVAE

_BATCH = 16


def captioned_latents(
    vae: MobiVidVAE,
    source: Path | str,
    *,
    frames: int,
    size: int,
    per_file: int = 8,
    text_tokens: int = MAX_LENGTH,
) -> tuple[LatentDataset, FolderReport]:
    """Encode a folder or shards of captioned videos.

    Args:
        vae: Encodes the clips.
        source: See `captioned_clips`.
        frames: Frames a clip.
        size: Height and width in pixels.
        per_file: Clips taken from one video at most.
        text_tokens: Longer captions are cut, with a warning.

    Returns:
        The data set (its `labels` are empty), and what was used and skipped.

    Raises:
        ParameterError: The source holds no captioned videos.
        VideoError: No video gave a clip; the message lists the reasons.
    """
    report = FolderReport(Path(source))
    latents, wordings = [], []
    for video in captioned_clips(source, report, frames=frames, size=size, per_file=per_file):
        latents.append(_encode(vae, video.clips))
        wordings += [video.captions] * len(video.clips)
    if not latents:
        raise VideoError(f"no clip of {frames} frames in this source. {report}")
    distinct = sorted({words for row in wordings for words in row})
    place = {words: i for i, words in enumerate(distinct)}
    text, mask = encode_text(distinct, max_length=text_tokens)
    null_text, null_mask = encode_text([""], max_length=text_tokens)
    most = max(map(len, wordings))
    # fewer wordings are repeated in turn, so that every row is as long
    rows = [[place[row[k % len(row)]] for k in range(most)] for row in wordings]
    data = LatentDataset(torch.cat(latents), text.half(), mask, torch.tensor(rows), [], null_text, null_mask)
    return data, report


@torch.no_grad()
def _encode(vae: MobiVidVAE, clips: np.ndarray) -> Tensor:
    vae.eval()
    parts = [
        torch.stack([frames_to_clip(clip) for clip in clips[i : i + _BATCH]]) for i in range(0, len(clips), _BATCH)
    ]
    return torch.cat([vae.encode_latents(part).half() for part in parts])
