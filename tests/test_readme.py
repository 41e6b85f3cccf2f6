"""The README's first screen, its generated tables and the instructors' minutes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from mobivid_core.errors import RunError
from mobivid_core.evidence import MEANING
from mobivid_core.lab import readme, site
from mobivid_core.lab.state import FILES, state
from mobivid_core.paths import checkpoints_dir, data_dir, project_root
from mobivid_core.profiles import PROFILES
from mobivid_core.show.results import HEADLINES, read_headlines

TEXT = (project_root() / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (project_root() / "docs").glob("*.md")}


def _at_head(path: Path) -> bytes:
    """A file as committed: a run on another machine has results of its own in `figures/`."""
    command = ["git", "show", f"HEAD:./{path.as_posix()}"]
    shown = subprocess.run(command, cwd=project_root(), capture_output=True) if shutil.which("git") else None
    if shown is None or shown.returncode:
        pytest.skip("needs a git clone: only git tells the committed results from those of a run")
    return shown.stdout


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed documents and results."""
    root = tmp_path_factory.mktemp("committed")
    results = [Path("figures") / name for name in (readme.HEADLINES, readme.CLAIMS, readme.EXPECTED, *FILES)]
    for path in (readme.README, readme.CLAIMS_PAGE, readme.GUIDE, *results):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(_at_head(path))
    return root


def test_headlines_printed_in_notebooks_are_those_on_record(committed: Path) -> None:
    record = {row["id"]: row for row in read_headlines(committed / "figures" / HEADLINES)}
    printed: dict[str, str] = {}
    for path in sorted((project_root() / "notebooks").glob("0*.ipynb")):
        cells = json.loads(_at_head(path.relative_to(project_root())))["cells"]
        streams = [out["text"] for cell in cells for out in cell.get("outputs", []) if out["output_type"] == "stream"]
        text = "".join("".join(lines) for lines in streams)
        printed |= dict(re.findall(r"^headline (\w+) = ([\d,.e+-]+)", text, re.MULTILINE))
    assert printed.keys() == record.keys(), "outputs of notebooks and figures/headlines.csv are of different runs"
    for name, value in printed.items():
        assert float(value.replace(",", "")) == pytest.approx(float(record[name]["value"]), rel=1e-3), name


@pytest.mark.parametrize("document", [readme.README, readme.CLAIMS_PAGE, readme.GUIDE])
def test_generated_tables_are_in_step_with_the_committed_results(document: Path, committed: Path) -> None:
    now, should_be = readme.current(committed)[document]
    assert now == should_be, "run `mobivid readme`, and commit it with the results"


def test_minutes_are_rounded_up() -> None:
    table = readme.minutes_table({"02_b": 61.0, "00_a": 9.0})
    assert table.splitlines()[::2] == ["| notebook | 00 | 02 |", "| minutes | 1 | 2 |"]


def test_the_table_rounds_and_links() -> None:
    row = {"id": "new_number", "value": "12345.6", "low": "0.12345", "high": "2", "unit": "dB", "evidence": "measured"}
    table = readme.headline_table([row | {"notebook": "01_vae_compression", "n": "3", "profile": "laptop"}])
    expected = "| new number | 12,346 dB | 0.123 to 2 | measured | [01](notebooks/01_vae_compression.ipynb) |"
    assert table.splitlines()[-1] == expected
    near = readme.headline_table([row | {"value": "1.00405", "low": "0.976971", "high": "31.95", "notebook": "05"}])
    assert "| 1.004 dB | 0.977 to 31.9 |" in near
    bare = readme.headline_table([row | {"notebook": "01_vae_compression", "n": "3", "low": "", "high": ""}])
    assert "| 12,346 dB | none (n = 3) | measured |" in bare  # a median of three is told as one of three
    assert "No headline numbers yet" in readme.headline_table([])


def test_the_state_of_the_models_needs_all_rows(committed: Path, tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(committed / "figures" / name, tmp_path)
    assert "four-step student" in state(tmp_path)
    table = tmp_path / FILES[0]
    lines = [line for line in table.read_text().splitlines() if not line.startswith('"pruned')]
    table.write_text("\n".join(lines))
    assert state(tmp_path) == "*Results of notebooks 02 and 05 are incomplete (no row 'pruned'): run both.*"
    table.unlink()
    assert "incomplete" in state(tmp_path)


def test_lost_markers_are_an_error() -> None:
    with pytest.raises(RunError, match="lacks the markers"):
        readme.rendered("# MobiVid", "headlines", "table")


def test_the_first_table_is_short_and_of_real_numbers() -> None:
    assert set(readme.telling()) <= readme.headline_names().keys()
    assert 8 <= len(readme.telling()) == len(set(readme.telling())) <= 16
    # bars that are missed, or were, belong beside those that are met
    assert {"prune_minivbench_gain", "student_gain_over_free4", "prune_kd_over_random_paper"} <= set(readme.telling())


def test_each_tested_claim_has_a_command_minutes_and_a_rule() -> None:
    row = {"id": "C01", "claim": "speed", "published": "15", "unit": "frames/s", "ours": "19.9", "scale": "paper scale"}
    row |= {"rule": "at least 10", "verdict": "consistent", "notebook": "06_iphone_benchmark", "class": "trend"}
    arithmetic = row | {"id": "C14", "notebook": "", "scale": "", "class": "arithmetic"}
    untested = row | {"id": "C05", "ours": ""}
    table = readme.claims_table([arithmetic, row, untested], {"06_iphone_benchmark": 110.0, "07_scorecard": 10})
    assert table.splitlines()[2:] == [
        "| C01 speed: 15 frames/s; ours 19.9 (paper scale) | trend | [06](../notebooks/06_iphone_benchmark.ipynb) "
        '| `make reproduce ARGS="--only 06"` | 2 | at least 10 | consistent |',
        "| C14 speed: 15 frames/s; ours 19.9 | arithmetic | [07](../notebooks/07_scorecard.ipynb) "
        '| `make reproduce ARGS="--only 07"` | 1 | at least 10 | consistent |',
    ]


def test_the_paper_is_the_preferred_citation_and_every_part_has_a_licence() -> None:
    citation = yaml.safe_load((project_root() / "CITATION.cff").read_text(encoding="utf-8"))
    preferred = citation["preferred-citation"]
    assert preferred["title"].startswith("Taming Diffusion Transformer") and len(preferred["authors"]) == 12
    assert {"type": "other", "value": "arXiv:2507.13343"} in preferred["identifiers"]
    assert citation["license"] == "MIT" and "MIT License" in (project_root() / "LICENSE").read_text(encoding="utf-8")
    licences = [data_dir() / name / "LICENCE.txt" for name in ("clips", "sprites", "backgrounds")]
    cards = [folder / "README.md" for folder in checkpoints_dir().iterdir() if folder.is_dir()]
    root = project_root()
    for path in [root / "LICENSE", root / "CITATION.cff", data_dir() / "README.md", *licences, *cards]:
        assert f"]({path.relative_to(root).as_posix()})" in TEXT, f"README.md does not link to {path}"
    for card in cards:
        words = card.read_text(encoding="utf-8")
        assert "MIT" in words and "`mobivid " in words, f"{card} lacks its licence or its recipe"


def test_the_first_screen_has_the_two_commands_and_the_limits() -> None:
    first = "\n".join(TEXT.splitlines()[:36])
    for part in ("make reproduce", "make test", "no code and no weights", "miniatures", "No iPhone was used"):
        assert part in first


def test_the_readme_fits_three_screens() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_links_profiles_and_classes_are_real() -> None:
    for page, text in {project_root() / "README.md": TEXT, **PAGES}.items():
        for target in re.findall(r"\]\(([^)#\s]+)\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
    assert all(any(f"| `{name}` |" in text for text in [TEXT, *PAGES.values()]) for name in [*PROFILES, *MEANING])
    assert set(site.PAGES) >= {f"docs/{page.name}" for page in PAGES}
    for line in re.findall(r"^  (\w+(?:/|\.py)) ", TEXT, re.MULTILINE):
        assert (project_root() / "mobivid_core" / line).exists(), f"README.md's tree lists {line}"


def test_every_headline_has_a_meaning_that_says_its_scale() -> None:
    names = readme.headline_names()
    shown = [row["id"] for row in read_headlines(project_root() / "figures" / HEADLINES)]
    assert shown
    assert not [result for result in shown if result not in names]
    miniature = ("vae_", "teacher_", "sens_", "prune_", "student_", "speedup_")
    assert not [r for r in shown if r.startswith(miniature) and "miniature" not in names[r]]
