"""The README's first screen and its generated table."""

from __future__ import annotations

import re

import pytest
import yaml

from mobivid_core.errors import RunError
from mobivid_core.paths import project_root
from mobivid_core.profiles import PROFILES
from mobivid_core.report import readme
from mobivid_core.report.evidence import MEANING
from mobivid_core.report.results import HEADLINES, read_headlines

TEXT = (project_root() / "README.md").read_text(encoding="utf-8")


def test_the_headline_table_is_in_step_with_the_results() -> None:
    now, should_be = readme.current()
    assert now == should_be, "run `python -m mobivid_core.report.readme`"


def test_the_table_rounds_and_links() -> None:
    row = {"id": "new_number", "value": "12345.6", "low": "0.12345", "high": "2", "unit": "dB", "evidence": "measured"}
    table = readme.headline_table([row | {"notebook": "01_vae_compression", "n": "3", "profile": "laptop"}])
    expected = "| new number | 12,346 dB | 0.123 to 2 | measured | [01](notebooks/01_vae_compression.ipynb) |"
    assert table.splitlines()[-1] == expected
    assert "No headline numbers yet" in readme.headline_table([])


def test_the_shown_headlines_exist_and_are_few() -> None:
    known = {row["id"] for row in read_headlines(project_root() / "figures" / HEADLINES)}
    assert not set(readme.SHOWN) - known
    assert len(set(readme.SHOWN)) == len(readme.SHOWN) <= 15


def test_only_claims_with_a_value_are_listed_with_what_it_takes() -> None:
    row = {"id": "C01", "claim": "speed", "published": "2.0", "unit": "1e9", "evidence (published)": "paper"}
    row |= {"ours": "1.9", "evidence (ours)": "derived", "rule": "within 10%", "verdict": "consistent"}
    untested = row | {"id": "C02", "ours": "", "notebook": ""}
    rows = [row | {"notebook": "04_tri_level_pruning"}, untested, row | {"id": "C03", "notebook": ""}]
    lines = readme.claims_table(rows, {"04_tri_level_pruning": 620.0, "07_scorecard": 10}).splitlines()[2:]
    assert lines[0] == (
        "| C01: speed, 2.0 billion (paper) | [04](notebooks/04_tri_level_pruning.ipynb) | "
        '`make reproduce ARGS="--only 04"` | 10 | within 10% | consistent: 1.9 (derived) |'
    )
    assert len(lines) == 2 and "[07]" in lines[1] and "under 1" in lines[1]


def test_lost_markers_are_an_error() -> None:
    with pytest.raises(RunError, match="lacks the markers"):
        readme.rendered("# MobiVid", "headlines", "table")


def test_the_first_screen_has_the_two_commands_and_the_limits() -> None:
    first = "\n".join(TEXT.splitlines()[:36])
    for part in ("make reproduce", "make test", "no code and no weights", "miniatures", "No iPhone was used"):
        assert part in first


def test_links_profiles_and_classes_are_real() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", TEXT):
        if "://" not in target:
            assert (project_root() / target).exists(), f"README.md links to {target}, which is not there"
    assert all(f"| `{name}` |" in TEXT for name in [*PROFILES, *MEANING])
    for line in re.findall(r"^  (\w+(?:/|\.py)) ", TEXT, re.MULTILINE):
        assert (project_root() / "mobivid_core" / line).exists(), f"README.md's tree lists {line}"


def test_every_licence_and_card_is_there_and_linked_and_the_paper_is_what_to_cite() -> None:
    root = project_root()
    linked = set(re.findall(r"\]\(([^)#\s]+)\)", TEXT))
    cards = "data/checkpoints/README.md"
    assert {"LICENSE", "CITATION.cff", "data/README.md", "data/clips/LICENCE.txt", cards} <= linked
    listed = (root / cards).read_text(encoding="utf-8")
    for folder in (p for p in (root / "data" / "checkpoints").iterdir() if p.is_dir()):
        assert f"({folder.name}/README.md)" in listed and (folder / "README.md").is_file()
    for name in ("clips", "sprites", "backgrounds"):
        assert (root / "data" / name / "LICENCE.txt").is_file()
    preferred = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert preferred["title"] == "Taming Diffusion Transformer for Efficient Mobile Video Generation in Seconds"
    assert "2507.13343" in preferred["url"] and len(preferred["authors"]) == 12


def test_every_headline_has_a_meaning_that_says_its_scale() -> None:
    names = readme.headline_names()
    shown = [row["id"] for row in read_headlines(project_root() / "figures" / HEADLINES)]
    assert shown
    assert not [result for result in shown if result not in names]
    miniature = ("vae_", "teacher_", "sens_", "prune_", "student_", "speedup_")
    assert not [r for r in shown if r.startswith(miniature) and "miniature" not in names[r]]
