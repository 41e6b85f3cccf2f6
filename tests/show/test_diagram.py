"""The pipeline picture marks one place, or none."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from mobivid_core.errors import ParameterError
from mobivid_core.show.diagram import STATIONS, pipeline_figure


@pytest.mark.parametrize("here", [None, *STATIONS])
def test_one_place_is_marked(here: str | None) -> None:
    figure = pipeline_figure(here)
    shown = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    assert shown.count("you are here") == (here is not None)
    assert set(STATIONS) <= set(shown)


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(ParameterError, match="no station '9'"):
        pipeline_figure("9")
