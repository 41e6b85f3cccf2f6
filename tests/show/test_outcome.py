"""A result that brings its finding is registered like one whose parts are given."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mobivid_core.errors import ParameterError
from mobivid_core.show import results as registry
from mobivid_core.show.outcome import FigureResult, TableResult
from mobivid_core.show.results import Results

FRAME = pd.DataFrame({"x": [1, 2]})


def test_results_bring_their_finding_evidence_and_data(runs: Path) -> None:
    results = Results(notebook="01_vae_compression", profile="smoke")
    results.table("whole", TableResult(FRAME, "Two rows.", "derived", "Table 3"))
    results.table("parts", FRAME, finding="Two rows.", evidence="derived", paper_item="Table 3")
    results.figure("drawn", FigureResult(plt.figure(), "A page.", data=FRAME))
    entries = registry.manifest("smoke")
    whole, parts = ({k: v for k, v in entries[i].items() if k not in ("id", "files")} for i in ("whole", "parts"))
    assert whole == parts and whole["paper_item"] == "Table 3"
    assert entries["drawn"]["evidence"] == "measured" and "drawn.csv" in entries["drawn"]["files"]
    assert (results.folder / "whole.csv").read_text() == (results.folder / "parts.csv").read_text()


def test_a_table_without_a_finding_is_refused(runs: Path) -> None:
    with pytest.raises(ParameterError, match="needs a finding"):
        Results(notebook="01_vae_compression", profile="smoke").table("bare", FRAME, evidence="derived")
