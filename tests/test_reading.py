"""Reading without running: committed notebooks open fast and whole on a code host and in the static site."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
import pytest

from mobivid_core.paths import notebooks_dir
from mobivid_core.show.media import EMBED_LIMIT

NOTEBOOKS = sorted(notebooks_dir().rglob("*.ipynb"))
IMAGE_BYTES = 150_000
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _outputs(path: Path) -> list[tuple[int, dict]]:
    """(index of the cell, data by MIME type) of every output that shows something."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        (i, output["data"]) for i, cell in enumerate(cells) for output in cell.get("outputs", []) if "data" in output
    ]


def test_there_is_something_to_read() -> None:
    assert len(NOTEBOOKS) >= 8
    numbered = [path for path in NOTEBOOKS if path.stem[0].isdigit() and path.parent == notebooks_dir()]
    shown = {path: {kind for _, data in _outputs(path) for kind in data} for path in numbered}
    assert sum(map(bool, shown.values())) >= 8
    for path, kinds in shown.items():
        assert {"image/png", "text/html", "text/markdown"} <= kinds, f"{path.name} shows only {sorted(kinds)}"


@every_notebook
def test_no_widget_state_is_kept(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert "widgets" not in cell.metadata
    for index, data in _outputs(path):
        assert not [kind for kind in data if "widget" in kind], f"{path.name}, cell {index}"


@every_notebook
def test_images_are_small_and_whole(path: Path) -> None:
    for index, data in _outputs(path):
        for kind in (kind for kind in data if kind.startswith("image/") and kind != "image/svg+xml"):
            image = base64.b64decode(data[kind], validate=False)
            where = f"{path.name}, cell {index}: {kind}"
            assert len(image) <= IMAGE_BYTES, f"{where} of {len(image) / 1000:.0f} kB"
            if kind == "image/png":
                assert image.startswith(b"\x89PNG") and image.rstrip().endswith(b"IEND\xaeB`\x82"), (
                    f"{where} is cut off"
                )
            if kind == "image/jpeg":
                assert image.startswith(b"\xff\xd8") and image.rstrip().endswith(b"\xff\xd9"), f"{where} is cut off"


@every_notebook
def test_clips_are_inside_the_notebook(path: Path) -> None:
    for index, data in _outputs(path):
        page = data.get("text/html", "")
        for part in page.split("<video")[1:]:
            tag = part.split(">")[0]
            where = f"{path.name}, cell {index}"
            assert 'src="data:video/mp4;base64,' in tag, f"{where}: a clip that lies elsewhere"
            assert {"autoplay", "muted", "loop"} <= set(tag.split()), f"{where}: browsers only start muted clips"
            assert len(tag) < EMBED_LIMIT + 500, where
