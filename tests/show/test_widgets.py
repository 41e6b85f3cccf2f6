"""The scrubber: each control changes the picture, and the picture shows what the controls say."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mobivid_core.errors import ParameterError
from mobivid_core.show.widgets import error_clip, scrubber


def shades(number: int = 2, frames: int = 3, size: int = 8) -> torch.Tensor:
    """Every clip and frame has its own grey."""
    values = torch.linspace(-0.9, 0.9, number * frames).view(number, 1, frames, 1, 1)
    return values.expand(number, 3, frames, size, size).clone()


def greys(picture: bytes) -> list[int]:
    """Grey of the three panels of a picture."""
    array = np.asarray(Image.open(io.BytesIO(picture)))
    return [int(array[4, 10 * panel + 4, 0]) for panel in range(3)]


def test_controls_choose_what_is_shown():
    clips = shades()
    box = scrubber(clips, {"exact": clips, "dark": clips - 0.05}, ["one", "two"])
    (clip, codec), frame, picture = box.children[0].children, box.children[1], box.children[2]
    grey = round((clips[0, 0, 0, 0, 0].item() + 1) * 127.5)
    assert greys(picture.value) == [grey, grey, 0]
    codec.value = "dark"
    # An error of 0.05, enlarged four times, is 0.2 of the scale from 0 to 2: a tenth of 255.
    assert greys(picture.value)[2] == pytest.approx(25.5, abs=1)
    clip.value, frame.value = 1, 2
    assert greys(picture.value)[0] == round((clips[1, 0, 2, 0, 0].item() + 1) * 127.5)


def test_error_is_grey_and_clipped():
    clip = torch.zeros(3, 1, 4, 4)
    wrong = clip.clone()
    wrong[0] = 0.3
    error = error_clip(wrong, clip)
    assert error.shape == clip.shape and torch.allclose(error, torch.full_like(clip, 0.3 / 3 * 4 - 1))
    assert error_clip(clip + 2, clip).max() == 1


def test_wrong_shapes_are_explained():
    clips = shades()
    with pytest.raises(ParameterError, match="originals' shape"):
        scrubber(clips, {"short": clips[:1]}, ["one", "two"])
    with pytest.raises(ParameterError, match="expected 2 titles"):
        scrubber(clips, {"exact": clips}, ["one"])


def test_the_picker_shows_the_chosen_picture():
    import matplotlib.pyplot as plt

    from mobivid_core.show.widgets import picture_picker, png_of

    pictures = {}
    for name in ("one", "two"):
        figure, axes = plt.subplots(figsize=(1, 1))
        axes.set_title(name)
        pictures[name] = png_of(figure)
    assert pictures["one"] != pictures["two"]
    menu, image = picture_picker(pictures, "show").children
    assert image.value == pictures["one"]
    menu.value = "two"
    assert image.value == pictures["two"]
    with pytest.raises(ParameterError, match="nothing to pick"):
        picture_picker({}, "show")
