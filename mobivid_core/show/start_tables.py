"""Tables of notebook 00: the paper's main claims and the evidence classes."""

from __future__ import annotations

import pandas as pd

from mobivid_core import published
from mobivid_core.evidence import MEANING
from mobivid_core.show.outcome import TableResult

#: The claims that one page of the paper needs, in the order of the pipeline.
MAIN_CLAIMS = ("C04", "C13", "C19", "C20", "C21", "C22", "C23", "C24", "C01", "C05", "C14")


def main_claims() -> TableResult:
    """The paper's main claims with the evidence that the paper makes them; indexed by claim id."""
    page = published.claims().set_index("id").loc[list(MAIN_CLAIMS), ["claim", "value", "unit", "evidence"]]
    read = int((page["evidence"] == "paper").sum())
    finding = (
        f"The paper's main claims; {read} of {len(page)} could be read in the paper's own text, the others reached us "
        "through reviewers and notes."
    )
    return TableResult(page, finding, "third-party")


def evidence_classes() -> TableResult:
    """What each evidence class means."""
    finding = f"{len(MEANING)} classes, from what this project measured itself to what it had to assume."
    return TableResult(pd.DataFrame(MEANING.items(), columns=["class", "meaning"]), finding, "assumed")
