import pytest

from mobivid_core.artifacts import load_model
from mobivid_core.data.render import RenderedClips, render_clips
from mobivid_core.evaluate.judge import Judge
from mobivid_core.paths import checkpoints_dir


@pytest.fixture(scope="session")
def judge() -> Judge:
    """The shipped judge."""
    return load_model(Judge, checkpoints_dir() / "judge").eval()


@pytest.fixture(scope="session")
def real() -> RenderedClips:
    """Real clips of captions that no generator was trained on."""
    return render_clips("test", range(32), size=64)


@pytest.fixture(scope="session")
def others() -> RenderedClips:
    """More real clips, for references."""
    return render_clips("test", range(1000, 1048), size=64)
