import pytest

from mobivid_core.data.render import RenderedClips, render_clips


@pytest.fixture(scope="session")
def real() -> RenderedClips:
    """Real clips of captions that no generator was trained on."""
    return render_clips("test", range(32), size=64)


@pytest.fixture(scope="session")
def others() -> RenderedClips:
    """More real clips, for references."""
    return render_clips("test", range(1000, 1048), size=64)
