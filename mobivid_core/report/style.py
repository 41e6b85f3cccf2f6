"""One look for every figure: a palette that colour-blind readers can tell apart, and stable bytes.

Colours: Okabe and Ito's palette (jfly.uni-koeln.de/color), dark text on a white ground so that a
figure also reads in a dark theme.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

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
    "derived": PALETTE["green"],
    "paper": PALETTE["vermillion"],
    "review": PALETTE["purple"],
    "third-party": PALETTE["orange"],
    "vendor": PALETTE["sky"],
    "assumed": "#999999",
}
FIGURE_SIZE = (7.0, 3.6)
DPI = 110
#: Largest strip of frames in bytes: pages that show notebooks fold or drop larger images.
STRIP_BYTES = 140_000


def use_style() -> None:
    """Set matplotlib's defaults for the notebook: palette, size, light grid, fixed hash salt."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": FIGURE_SIZE,
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": mpl.cycler(color=list(PALETTE.values())),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "font.family": "DejaVu Sans",  # ships inside matplotlib: the same everywhere
            "svg.hashsalt": "mobivid",
        }
    )


def png_bytes(fig: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes (no date, no version inside)."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def palette_png_bytes(fig: Figure) -> bytes:
    """The figure as PNG of 256 colours: a third of the size, for strips of photographic frames."""
    from PIL import Image

    return shrunk_png(_quantised(Image.open(io.BytesIO(png_bytes(fig))).convert("RGB")))


def shrunk_png(png: bytes, limit: int = STRIP_BYTES) -> bytes:
    """A PNG of 256 colours made smaller, a tenth of its width at a time, until it has at most `limit` bytes."""
    from PIL import Image

    whole = Image.open(io.BytesIO(png)).convert("RGB")
    scale = 1.0
    while len(png) > limit:
        scale *= 0.9
        size = (round(whole.width * scale), round(whole.height * scale))
        png = _quantised(whole.resize(size, Image.Resampling.LANCZOS))
    return png


def _quantised(image: Image.Image) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
