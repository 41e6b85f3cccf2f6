"""The static site: what it is built from, that it runs and fetches nothing, and what its errors say."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml

from mobivid_core.errors import MobiVidError
from mobivid_core.lab import site
from mobivid_core.lab.teaching.masters import read_masters
from mobivid_core.paths import notebooks_dir, project_root


def test_the_source_holds_every_notebook_and_all_that_pages_link_to(tmp_path: Path) -> None:
    site.write_source(tmp_path)
    names = sorted(path.name for path in notebooks_dir().glob("0*.ipynb"))
    assert sorted(path.name for path in (tmp_path / "notebooks").glob("*.ipynb")) == names
    for name in ("README.md", "LICENSE", "data/README.md", "data/captioned.webp"):
        assert (tmp_path / name).read_bytes() == (project_root() / name).read_bytes()
    toc = yaml.safe_load((tmp_path / "_toc.yml").read_text())
    assert toc["root"] == "README"
    assert [f"{entry['file']}.ipynb" for entry in toc["parts"][0]["chapters"]] == [
        f"notebooks/{name}" for name in names
    ]


def test_exercise_pages_show_no_solution(tmp_path: Path) -> None:
    """What the site shows is the student's edition: every master's page, no cell tagged as a solution or a note."""
    site.write_source(tmp_path)
    pages = sorted((tmp_path / "notebooks" / "teaching").glob("*.ipynb"))
    assert [page.stem for page in pages] == [master.name for master in read_masters()]
    for page in pages:
        tags = {tag for cell in nbformat.read(page, as_version=4).cells for tag in cell.metadata.get("tags", [])}
        assert "exercise" in tags and not tags & {"solution", "instructor"}


def test_nothing_is_executed_and_no_extension_loads_from_a_cdn(tmp_path: Path) -> None:
    site.write_source(tmp_path)
    config = yaml.safe_load((tmp_path / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    extensions = config["sphinx"]["config"]["extensions"]
    assert "sphinx-mathjax-offline" in extensions and not {"sphinx_thebe", "sphinx.ext.mathjax"} & set(extensions)


def test_exercises_and_notes_for_teachers_are_listed_where_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "notebooks" / "teaching").mkdir(parents=True)
    (tmp_path / "notebooks" / "00_a.ipynb").touch()
    assert [part["caption"] for part in site.contents(tmp_path)["parts"]] == ["Notebooks"]
    for name in ("INSTRUCTORS.md", "ex00_a.ipynb"):
        (tmp_path / "notebooks" / "teaching" / name).touch()
    exercises, more = site.contents(tmp_path)["parts"][1:]
    assert exercises["chapters"] == [{"file": "notebooks/teaching/ex00_a"}]
    assert more["chapters"] == [{"file": "notebooks/teaching/INSTRUCTORS"}]


@pytest.mark.parametrize(
    ("tag", "address"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ('<script async="async" src="//cdn.example/x.js"></script>', "//cdn.example/x.js"),
        ('<link rel="stylesheet" href="https://cdn.example/x.css">', "https://cdn.example/x.css"),
        ('<link href="https://cdn.example/x.css" rel="stylesheet">', "https://cdn.example/x.css"),
        ('<img alt="a" src="http://example.org/a.png">', "http://example.org/a.png"),
        ('<a href="https://arxiv.org/abs/2507.13343">paper</a>', None),
        ('<link rel="canonical" href="https://example.org/">', None),
        ('<video src="data:video/mp4;base64,AA=="></video><script src="_static/x.js"></script>', None),
    ],
)
def test_fetched_tells_links_from_what_a_page_loads(tmp_path: Path, tag: str, address: str | None) -> None:
    (tmp_path / "page.html").write_text(f"<html><body>{tag}</body></html>")
    assert site.fetched(tmp_path) == ({"page.html": [address]} if address else {})


def test_a_missing_jupyter_book_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "find_spec", lambda name: None if name == "jupyter_book" else find_spec("json"))
    with pytest.raises(MobiVidError, match="the site needs jupyter_book; .*make site"):
        site.build(tmp_path / "site")
    assert not (tmp_path / "site").exists()
