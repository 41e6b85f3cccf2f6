"""Notebook 00's tables say what the published numbers say."""

from __future__ import annotations

from mobivid_core import published
from mobivid_core.evidence import MEANING
from mobivid_core.show.start_tables import MAIN_CLAIMS, evidence_classes, main_claims


def test_main_claims_count_what_was_read() -> None:
    shown = main_claims()
    assert tuple(shown.frame.index) == MAIN_CLAIMS and shown.frame.index.name == "id"
    read = sum(published.claim(name).evidence == "paper" for name in MAIN_CLAIMS)
    assert f"{read} of {len(MAIN_CLAIMS)} could be read" in shown.finding


def test_every_class_is_explained() -> None:
    assert dict(evidence_classes().frame.to_numpy().tolist()) == MEANING
