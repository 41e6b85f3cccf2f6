"""Evidence classes: the kind of knowledge behind a number.

They follow data/paper/README.md; `measured` and `recorded` are added for what this project measures itself.
"""

from __future__ import annotations

#: What each class means, in one clause; notebook 00 and the README show it.
MEANING = {
    "measured": "measured by this project's own code, in the run that shows it",
    "recorded": "measured by this project's own code in an earlier run, and read from data/benchmarks/ with its date",
    "derived": "arithmetic or a model built on other numbers, shown step by step",
    "paper": "read in the paper's own text (arXiv 2507.13343, v1 or v2)",
    "review": "stated by an ICLR reviewer who had the PDF",
    "third-party": "one public note or another paper says so; not checked against the PDF",
    "vendor": "a manufacturer's data sheet",
    "assumed": "this project's own choice where nothing is known",
}
EVIDENCE = tuple(MEANING)
