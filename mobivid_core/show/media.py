"""Clips in notebooks and files: strips of frames, an embedded player, mp4 and animated WebP.

Clips play at 8 frames a second, a third of their nominal rate: 17 frames are over in 0.7 s otherwise. The player embeds
H.264 as a data URI, so that a committed notebook plays anywhere without files beside it; code hosts that drop `<video>`
still show the strip.
"""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.show.style import DPI

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure

Clips = Tensor | Sequence[Tensor]
FPS = 8
#: Embedded bytes of one output at most: committed notebooks must stay small.
EMBED_LIMIT = 150_000
_COLUMNS = 4
_GAP = 2  # pixels between tiles
_HEIGHT = 128  # of a player on the page, in pixels


def tile(clips: Clips, columns: int = _COLUMNS) -> np.ndarray:
    """Lay clips out in a grid: (N, 3, T, H, W) in [-1, 1] -> uint8 (T, rows * H, columns * W, 3), white between."""
    return _tile(_frames(clips), columns)


def _tile(videos: list[np.ndarray], columns: int) -> np.ndarray:
    columns = min(columns, len(videos))
    blank = np.full_like(videos[0], 255)
    videos = videos + [blank] * (-len(videos) % columns)
    edge = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    padded = [np.pad(video, edge, constant_values=255) for video in videos]
    rows = [np.concatenate(padded[i : i + columns], axis=2) for i in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=1)[:, :-_GAP, :-_GAP]


def frame_strip(clips: Clips, titles: Sequence[str] | None = None, frames: int = 6) -> Figure:
    """Draw each clip (3, T, H, W) as a row of evenly spaced frames, first and last included, below its title.

    Wrong shapes, or not one title a clip, are a `ParameterError`.
    """
    import matplotlib.pyplot as plt

    videos = _frames(clips, titles)
    shown = np.linspace(0, len(videos[0]) - 1, min(frames, len(videos[0]))).round().astype(int)
    height, width = videos[0].shape[1:3]
    side = 1.25  # inches of a frame's width
    row = side * height / width + (0.25 if titles else 0.06)
    fig, axes = plt.subplots(
        len(videos), 1, figsize=(side * len(shown) + 0.1, row * len(videos) + 0.3), squeeze=False, layout="constrained"
    )
    gap = max(1, width // 32)
    for index, (axis, video) in enumerate(zip(axes[:, 0], videos, strict=True)):
        picture = np.concatenate([np.pad(video[t], ((0, 0), (0, gap), (0, 0)), constant_values=255) for t in shown], 1)
        axis.imshow(picture[:, :-gap], interpolation="nearest" if width < 1.25 * DPI else "antialiased")
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
    from IPython.display import HTML

    videos = _frames(clips, titles)
    rows = [videos[i : i + _COLUMNS] for i in range(0, len(videos), _COLUMNS)]
    encoded = _encode_within_limit([_tile(row, _COLUMNS) for row in rows])
    width = round(_HEIGHT * videos[0].shape[2] / videos[0].shape[1])
    parts = []
    for index, (row, data) in enumerate(zip(rows, encoded, strict=True)):
        own = titles[index * _COLUMNS : index * _COLUMNS + len(row)] if titles else []
        style = f"width:{width}px;font-size:12px;line-height:1.25;overflow-wrap:anywhere"
        captions = "".join(f'<div style="{style}">{html.escape(title)}</div>' for title in own)
        total = len(row) * width + (len(row) - 1) * _GAP
        parts.append(
            f'<div style="margin:4px 0;width:{total}px"><video autoplay loop muted playsinline controls '
            f'width="{total}" src="data:video/mp4;base64,{data}"></video>'
            f'<div style="display:flex;gap:{_GAP}px">{captions}</div></div>'
        )
    return HTML("".join(parts))


def save_mp4(path: Path, clip: Clips) -> Path:
    """Write one clip (3, T, H, W), or several tiled side by side, as H.264."""
    from mobivid_core.data.video_io import write_video

    return write_video(path, tile(_several(clip)), fps=FPS, crf=18)


def save_webp(path: Path, clip: Clips) -> Path:
    """Write one clip (3, T, H, W), or several tiled side by side, as a looping animated WebP.

    Code hosts and browsers show it as an image, as they do GIF. On our clips it takes a sixth of the bytes of a GIF
    with 128 colours and has a PSNR 3 to 7 dB higher.
    """
    from PIL import Image

    first, *others = map(Image.fromarray, tile(_several(clip)))
    settings = {"duration": round(1000 / FPS), "loop": 0, "quality": 75, "method": 4}
    first.save(path, format="WEBP", save_all=True, append_images=others, **settings)
    return path


def _encode_within_limit(rows: list[np.ndarray]) -> list[str]:
    """Base64 mp4 of each row, at the best quality whose total fits."""
    sizes = []
    for crf in (23, 26, 29, 32, 36, 40):
        encoded = [base64.b64encode(_mp4_bytes(row, crf)).decode() for row in rows]
        sizes.append(sum(map(len, encoded)))
        if sizes[-1] <= EMBED_LIMIT:
            return encoded
    raise ParameterError(
        f"these clips take {sizes[-1] / 1000:.0f} kB embedded, more than {EMBED_LIMIT / 1000:.0f} kB even at low "
        "quality; show fewer or smaller ones"
    )


def _mp4_bytes(frames: np.ndarray, crf: int) -> bytes:
    """Frames uint8 (T, H, W, 3) as the bytes of an H.264 file."""
    from mobivid_core.data.video_io import write_video

    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / "clip.mp4", frames, fps=FPS, crf=crf).read_bytes()


def _several(clip: Clips) -> Clips:
    return clip[None] if isinstance(clip, Tensor) and clip.ndim == 4 else clip


def _frames(clips: Clips, titles: Sequence[str] | None = None) -> list[np.ndarray]:
    """Frames (T, H, W, 3) of each clip; refuses wrong shapes, and titles that are not one a clip."""
    from mobivid_core.data.video_io import clip_to_frames

    shapes = {tuple(clip.shape) for clip in clips}
    if len(shapes) != 1 or len(next(iter(shapes))) != 4:
        got = tuple(clips.shape) if isinstance(clips, Tensor) else sorted(shapes)
        raise ParameterError(f"expected clips of shape (N, 3, T, H, W), all alike and at least one, got {got}")
    if titles is not None and (isinstance(titles, str) or len(titles) != len(clips)):
        raise ParameterError(f"expected {len(clips)} titles, one a clip, got {titles!r}")
    return [clip_to_frames(clip) for clip in clips]
