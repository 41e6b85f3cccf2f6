"""Style: figures are small without a visible loss, strips of frames fit the pages that show them."""

import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mobivid_core.show.style import png_bytes, shrunk_jpeg, strip_bytes, use_style


def _error(data: bytes, fig: plt.Figure) -> float:
    """Mean distance in grey levels from matplotlib's own rendering."""
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)
    return np.abs(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int) - drawn).mean()


def test_a_strip_is_shrunk_until_it_fits_and_no_further():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    whole = shrunk_jpeg(image, limit=10**6)
    assert Image.open(io.BytesIO(whole)).size == image.size
    coarser = shrunk_jpeg(image, limit=len(whole) - 1)  # quality gives way first
    assert len(coarser) < len(whole) and Image.open(io.BytesIO(coarser)).size == image.size
    small = shrunk_jpeg(image, limit=len(whole) // 4)
    assert len(small) <= len(whole) // 4
    assert 100 < Image.open(io.BytesIO(small)).width < 300


def test_plots_get_a_palette_and_photographs_keep_their_colours():
    use_style()
    fig, axis = plt.subplots()
    for k in range(5):
        axis.plot(np.sin(np.linspace(0, k, 50)), label=f"line {k}")
    axis.legend()
    plot = png_bytes(fig)
    assert Image.open(io.BytesIO(plot)).mode == "P" and _error(plot, fig) < 0.25
    photo, axis = plt.subplots()
    axis.imshow(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(png_bytes(photo))).mode == "RGB" and _error(png_bytes(photo), photo) == 0
    strip = strip_bytes(fig)
    assert strip == strip_bytes(fig) and Image.open(io.BytesIO(strip)).format == "JPEG"
    assert _error(strip, fig) < 1.5  # ringing beside lines
    plt.close("all")
