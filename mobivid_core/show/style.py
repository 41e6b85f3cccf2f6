"""Style of all figures: a palette safe for colour-blind readers, and stable bytes.

Colours: Okabe and Ito's palette (jfly.uni-koeln.de/color), dark text on a white ground so that a figure also reads in a
dark theme.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe-Ito, in the order in which series are drawn.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
#: Colour of each evidence class, the same in every figure.
EVIDENCE_COLOURS = {
    "measured": PALETTE["blue"],
    "recorded": "#5B7FA6",
    "derived": PALETTE["green"],
    "paper": PALETTE["vermillion"],
    "review": PALETTE["purple"],
    "third-party": PALETTE["orange"],
    "vendor": PALETTE["sky"],
    "assumed": "#999999",
}
FIGURE_SIZE = (7.0, 3.6)
DPI = 110
#: Largest strip of frames in bytes: pages that show notebooks fold or drop large images.
STRIP_BYTES = 90_000
#: Mean error in grey levels up to which 256 colours stand for all: line plots and colour maps stay below .2.
PALETTE_ERROR = 0.25


def use_style() -> None:
    """Set matplotlib's defaults for the notebook: palette, size, light grid.

    What a user's matplotlibrc says is undone first: the same figure is the same bytes on every machine.
    """
    import matplotlib as mpl

    mpl.rcdefaults()
    mpl.rc("figure", figsize=FIGURE_SIZE, dpi=DPI)
    mpl.rc("figure.constrained_layout", use=True)
    mpl.rc("axes", prop_cycle=mpl.cycler(color=list(PALETTE.values())), grid=True, axisbelow=True)
    mpl.rc("axes", titlesize=11, labelsize=10)
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("grid", alpha=0.3)
    mpl.rc("legend", frameon=False, fontsize=9)


def png_bytes(fig: Figure) -> bytes:
    """The figure as a small PNG; the same figure gives the same bytes (no date, no version inside).

    256 colours are enough for lines, text and colour maps, at a third of the size; a figure that needs more
    (photographs) keeps them all.
    """
    whole = _rendered(fig)
    few = whole.quantize(256, dither=Image.Dither.NONE)
    error = np.abs(np.asarray(few.convert("RGB"), dtype=np.int16) - np.asarray(whole, dtype=np.int16)).mean()
    buffer = io.BytesIO()
    (few if error <= PALETTE_ERROR else whole).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def strip_bytes(fig: Figure) -> bytes:
    """A strip of photographic frames as JPEG, the same bytes for the same figure: half of a PNG's with 256 colours.

    JPEG rather than WebP, because code hosts show it in notebooks. Colour is not subsampled: titles stay sharp.
    """
    return shrunk_jpeg(_rendered(fig))


def shrunk_jpeg(image: Image.Image, limit: int = STRIP_BYTES) -> bytes:
    """JPEG of at most `limit` bytes: quality gives way first, then the size, a tenth of the width at a time."""
    quality, scale, shown = 85, 1.0, image
    while True:
        buffer = io.BytesIO()
        # neither optimised nor progressive: Pillow would need a whole image's buffer, and noise overflows it
        shown.save(buffer, format="jpeg", quality=quality, subsampling=0)
        if buffer.tell() <= limit:
            return buffer.getvalue()
        if quality > 75:
            quality -= 5
        else:
            scale *= 0.9
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            shown = image.resize(size, Image.Resampling.LANCZOS)


def _rendered(fig: Figure) -> Image.Image:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Image.open(buffer).convert("RGB")
