"""Source pictures of the renderer: drawings of objects, blurred photos and film frames."""

from __future__ import annotations

import functools
import json

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.paths import data_dir

#: Blur of photo and film backgrounds: standard deviations as shares of the side, the first to the last level.
FOCUS = (0.012, 0.024, 0.036, 0.045)


@functools.cache
def sprites_of(size: int, device: torch.device) -> Tensor:
    """(D, 3, side, side) drawings: tinted share, white share, opacity; halved for small clips, against aliasing."""
    with np.load(data_dir() / "sprites" / "objects.npz") as stored:
        planes = torch.from_numpy(stored["planes"]).float() / 255
    return (F.avg_pool2d(planes, 2) if size < 96 else planes).to(device)


@functools.cache
def sprite_table() -> list[dict[str, str]]:
    """One row a drawing: shape, set (the artist), icon, licence, part (`train` or `test`)."""
    return json.loads((data_dir() / "sprites" / "objects.json").read_text(encoding="utf-8"))


@functools.cache
def sprite_numbers(part: str) -> dict[str, list[int]]:
    """Shape -> its drawings of one part."""
    own = [(number, row["shape"]) for number, row in enumerate(sprite_table()) if row["part"] == part]
    return {shape: [number for number, drawn in own if drawn == shape] for shape in VOCABULARY["shape"]}


def image_number(kind: str, part: str, uniform: float) -> int:
    """Which background image a draw chooses; 0 where none is shown."""
    first, count = image_ranges().get(f"film_{part}" if kind == "film" else kind, (0, 1))
    return first + int(uniform * count)


@functools.cache
def image_ranges() -> dict[str, tuple[int, int]]:
    """Kind of background image -> (first, how many) in `soft_images`."""
    ranges, first = {}, 0
    for kind, tiles in soft_images().items():
        ranges[kind] = (first, len(tiles))
        first += len(tiles)
    return ranges


@functools.cache
def soft_images() -> dict[str, Tensor]:
    """Background images (n, 3, 64, 64) in [0, 1]: photos, and film frames of both parts."""
    from PIL import Image

    folder, found = data_dir() / "backgrounds", {}
    for part in ("train", "test"):
        sheet = torch.from_numpy(np.asarray(Image.open(folder / f"film_{part}.png")).copy())
        found[f"film_{part}"] = sheet.unflatten(0, (-1, sheet.shape[1])).permute(0, 3, 1, 2).float() / 255
    photos = [p for p in sorted(folder.glob("*.png")) if not p.name.startswith("film_")]
    pixels = torch.stack([torch.from_numpy(np.asarray(Image.open(p).convert("RGB")).copy()) for p in photos])
    found["photo"] = F.interpolate(pixels.permute(0, 3, 1, 2).float() / 255, (64, 64), mode="area")
    return found


@functools.cache
def blurred_images(device: torch.device) -> Tensor:
    """(n, levels, 3, 64, 64): every background image at every level of blur."""
    images = torch.cat(list(soft_images().values()))
    levels = []
    for share in FOCUS:
        blur = _blur(images.shape[-1], share * images.shape[-1])
        levels.append(blur @ images @ blur.T)
    return torch.stack(levels, 1).to(device)


def _blur(side: int, sigma: float) -> Tensor:
    """(side, side) matrix of a Gaussian blur along one axis; beyond the edge the picture is mirrored."""
    reach = int(3 * sigma) + 1
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    sources = (torch.arange(side)[:, None] + offsets).abs()
    sources = torch.where(sources >= side, 2 * (side - 1) - sources, sources)
    return torch.zeros(side, side).scatter_add_(1, sources, (weights / weights.sum()).expand(side, -1).contiguous())
