"""Clips in notebooks and files: strips of frames, an embedded player, mp4 and animated WebP.

Clips play at 8 frames a second, a third of their nominal rate: 17 frames are over in 0.7 s otherwise. The player embeds
H.264 as a data URI, so that a committed notebook plays anywhere without files beside it; code hosts that drop `<video>`
still show the strip.
"""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mobivid_core.data.video_io import clip_to_frames, write_video
from mobivid_core.errors import ParameterError
from mobivid_core.show.style import DPI

Clips = Tensor | Sequence[Tensor]
FPS = 8
#: Embedded bytes of one output at most: committed notebooks must stay small.
EMBED_LIMIT = 150_000
_COLUMNS = 4
_GAP = 2  # pixels between tiles
_HEIGHT = 128  # of a player on the page, in pixels


def tile(clips: Clips, columns: int = _COLUMNS) -> np.ndarray:
    """Lay clips out in a grid: (N, 3, T, H, W) in [-1, 1] -> uint8 (T, rows * H, columns * W, 3), white between."""
    _check(clips)
    edge = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    padded = [np.pad(clip_to_frames(clip), edge, constant_values=255) for clip in clips]
    columns = min(columns, len(padded))
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % columns)
    rows = [np.concatenate(padded[i : i + columns], axis=2) for i in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=1)[:, :-_GAP, :-_GAP]


def side_by_side(clips: Clips) -> np.ndarray:
    """Clips (N, 3, T, H, W) in [-1, 1] in one row without gaps: uint8 (T, H, N * W, 3)."""
    return np.concatenate([clip_to_frames(clip) for clip in clips], axis=2)


def frame_strip(clips: Clips, titles: Sequence[str] | None = None, frames: int = 6) -> Figure:
    """Draw each clip (3, T, H, W) as a row of evenly spaced frames, first and last included, below its title.

    Wrong shapes, or not one title a clip, are a `ParameterError`.
    """
    _check(clips, titles)
    length, height, width = clips[0].shape[1:]
    shown = np.linspace(0, length - 1, min(frames, length)).round().astype(int)
    side = 1.25  # inches of a frame's width
    row = side * height / width + (0.25 if titles else 0.06)
    size = (side * len(shown) + 0.1, row * len(clips) + 0.3)
    fig, axes = plt.subplots(len(clips), 1, figsize=size, squeeze=False, layout="constrained")
    gap = max(1, width // 32)
    for index, (axis, clip) in enumerate(zip(axes[:, 0], clips, strict=True)):
        padded = np.pad(clip_to_frames(clip)[shown], ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
        picture = np.concatenate(padded, 1)[:, :-gap]
        axis.imshow(picture, interpolation="nearest" if width < 1.25 * DPI else "antialiased")
        axis.set(yticks=[], xticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        if titles:
            axis.set_title(titles[index], fontsize=9, loc="left", pad=2)
    axes[-1, 0].set_xticks([k * (width + gap) + width / 2 for k in range(len(shown))], [f"frame {t}" for t in shown])
    axes[-1, 0].tick_params(length=0, labelsize=8)
    return fig


def player(clips: Clips, titles: Sequence[str] | None = None) -> HTML:
    """Play clips (3, T, H, W) side by side, in step with one another within a row of four, above their titles.

    The videos lie inside the output, under 150 kB: quality gives way where many are shown. Wrong shapes, not one title
    a clip, or too many clips to embed are a `ParameterError`.
    """
    _check(clips, titles)
    width = round(_HEIGHT * clips[0].shape[3] / clips[0].shape[2])
    style = f"width:{width}px;font-size:12px;line-height:1.25;overflow-wrap:anywhere"
    rows = [slice(i, min(i + _COLUMNS, len(clips))) for i in range(0, len(clips), _COLUMNS)]
    parts = []
    for row, data in zip(rows, _encode_within_limit([tile(clips[row]) for row in rows]), strict=True):
        captions = "".join(f'<div style="{style}">{html.escape(title)}</div>' for title in (titles or ())[row])
        total = (row.stop - row.start) * (width + _GAP) - _GAP
        parts.append(
            f'<div style="margin:4px 0;width:{total}px"><video autoplay loop muted playsinline controls '
            f'width="{total}" src="data:video/mp4;base64,{data}"></video>'
            f'<div style="display:flex;gap:{_GAP}px">{captions}</div></div>'
        )
    return HTML("".join(parts))


def mp4_bytes(frames: np.ndarray, crf: int) -> bytes:
    """Frames uint8 (T, H, W, 3) as H.264."""
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / "clip.mp4", frames, fps=FPS, crf=crf).read_bytes()


def webp_bytes(frames: np.ndarray) -> bytes:
    """Frames uint8 (T, H, W, 3) as a looping animated WebP.

    Code hosts and browsers show it as an image, as they do GIF. On our clips it takes a sixth of the bytes of a GIF
    with 128 colours and has a PSNR 3 to 7 dB higher.
    """
    buffer, (first, *others) = io.BytesIO(), map(Image.fromarray, frames)
    settings = {"duration": round(1000 / FPS), "loop": 0, "quality": 75, "method": 4}
    first.save(buffer, format="WEBP", save_all=True, append_images=others, **settings)
    return buffer.getvalue()


def _encode_within_limit(rows: list[np.ndarray]) -> list[str]:
    """Base64 mp4 of each row, at the best quality whose total fits."""
    for crf in (23, 26, 29, 32, 36, 40):
        encoded = [base64.b64encode(mp4_bytes(row, crf)).decode() for row in rows]
        size = sum(map(len, encoded))
        if size <= EMBED_LIMIT:
            return encoded
    raise ParameterError(
        f"these clips take {size / 1000:.0f} kB embedded, more than {EMBED_LIMIT / 1000:.0f} kB even at low "
        "quality; show fewer or smaller ones"
    )


def _check(clips: Clips, titles: Sequence[str] | None = None) -> None:
    """Refuses wrong shapes, and titles that are not one a clip."""
    shapes = {tuple(clip.shape) for clip in clips}
    if len(shapes) != 1 or len(next(iter(shapes))) != 4:
        got = tuple(clips.shape) if isinstance(clips, Tensor) else sorted(shapes)
        raise ParameterError(f"expected clips of shape (N, 3, T, H, W), all alike and at least one, got {got}")
    if titles is not None and (isinstance(titles, str) or len(titles) != len(clips)):
        raise ParameterError(f"expected {len(clips)} titles, one a clip, got {titles!r}")
