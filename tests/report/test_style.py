"""Style: strips of frames fit the pages that show them."""

import io

import numpy as np
from PIL import Image

from mobivid_core.report.style import shrunk_png


def test_a_strip_is_shrunk_until_it_fits_and_no_further():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="png")
    png = buffer.getvalue()
    assert shrunk_png(png, limit=len(png)) == png
    small = shrunk_png(png, limit=20_000)
    assert len(small) <= 20_000
    assert 100 < Image.open(io.BytesIO(small)).width < 300
