"""Interactive views for notebooks.

Widgets are missing where no kernel runs (a code host, a printed page), so each has a static twin beside it in the
notebook: `scrubber` and `media.frame_strip` show the same clips.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.show.media import tile

#: Reconstruction errors are small: shown this many times enlarged.
ERROR_GAIN = 4


def error_clip(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Absolute error of (3, T, H, W) clips in [-1, 1], mean over colours, enlarged, as a grey clip: black is none."""
    error = (reconstruction - original).abs().mean(0, keepdim=True)
    return (error * ERROR_GAIN - 1).clamp(max=1).expand_as(original)


def scrubber(
    originals: Tensor, reconstructions: Mapping[str, Tensor], titles: Sequence[str], *, choice: str = "codec",
    sides: tuple[str, str] = ("original", "reconstruction"),
) -> widgets.VBox:  # fmt: skip
    """Pick a clip of `originals` (N, 3, T, H, W) and its reconstruction; scrub through both and the error.

    `choice` is what the second menu chooses, a codec or a sampler; `sides` are the names of the first two pictures.
    Shapes or titles that do not fit are a `ParameterError`.
    """
    if not reconstructions or any(clips.shape != originals.shape for clips in reconstructions.values()):
        raise ParameterError(f"every reconstruction must have the originals' shape {tuple(originals.shape)}")
    if len(titles) != len(originals):
        raise ParameterError(f"expected {len(originals)} titles, one a clip, got {len(titles)}")
    clip = widgets.Dropdown(options=[(title, n) for n, title in enumerate(titles)], description="clip")
    codec = widgets.Dropdown(options=list(reconstructions), description=choice)
    frame = widgets.IntSlider(0, 0, originals.shape[2] - 1, description="frame")
    picture = widgets.Image(format="png", height=192)

    def show(_: object = None) -> None:
        shown = slice(frame.value, frame.value + 1)
        ours, theirs = (clips[clip.value][:, shown] for clips in (originals, reconstructions[codec.value]))
        buffer = io.BytesIO()
        Image.fromarray(tile([ours, theirs, error_clip(theirs, ours)])[0]).save(buffer, format="PNG")
        picture.value = buffer.getvalue()

    for control in (clip, codec, frame):
        control.observe(show, names="value")
    show()
    legend = widgets.HTML(f"{sides[0]} &nbsp;|&nbsp; {sides[1]} &nbsp;|&nbsp; difference, enlarged {ERROR_GAIN} times")
    return widgets.VBox([widgets.HBox([clip, codec]), frame, picture, legend])


def picture_picker(pictures: Mapping[str, bytes], label: str) -> widgets.VBox:
    """One of several PNGs (`png_of`) at a time, chosen by name from a menu; no picture is a `ParameterError`."""
    if not pictures:
        raise ParameterError("nothing to pick from: give at least one picture")
    menu = widgets.Dropdown(options=list(pictures), description=label)
    image = widgets.Image(value=pictures[menu.value], format="png")
    menu.observe(lambda change: setattr(image, "value", pictures[change["new"]]), names="value")
    return widgets.VBox([menu, image])


def png_of(figure: Figure) -> bytes:
    """A matplotlib figure as PNG; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()
