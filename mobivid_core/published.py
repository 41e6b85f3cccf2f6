"""Published numbers, each with its evidence class; `data/paper/` is the only place they are written.

A blank cell is unknown and stays blank (NaN): nothing here fills one in. See data/paper/README.md for
what could be read of the paper and what could not.
"""

from __future__ import annotations

from functools import cache, partial

import pandas as pd

from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.evidence import EVIDENCE
from mobivid_core.paths import data_dir


@cache
def _read(name: str) -> pd.DataFrame:
    path = data_dir() / "paper" / f"{name}.csv"
    if not path.is_file():
        raise MobiVidError(f"{path} is missing; restore it with `git checkout -- data/paper`")
    frame = pd.read_csv(path)
    if "evidence" in frame:
        unknown = sorted(set(frame["evidence"].dropna()) - set(EVIDENCE))
        if unknown or frame["evidence"].isna().any():
            raise MobiVidError(f"{path} has rows without a known evidence class (found {unknown or 'blanks'})")
    if "id" in frame and frame["id"].duplicated().any():
        raise MobiVidError(f"{path} lists {frame.loc[frame['id'].duplicated(), 'id'].iloc[0]} twice")
    return frame


def _copy(name: str) -> pd.DataFrame:
    return _read(name).copy()


#: The paper's claims: id, location, claim, value (text, may be blank), unit, evidence, source.
claims = partial(_copy, "claims")
#: Published compression of video VAEs: ratio time x height x width and latent channels (blank where unknown).
vaes = partial(_copy, "vaes")
#: Systems and their published numbers (parameters in billions, latency in seconds).
published = partial(_copy, "published")
#: The paper's tables and figures as far as they are known.
tables = partial(_copy, "tables")
#: What the reviewers asked that an experiment can answer, and the notebook that should.
reviews = partial(_copy, "reviews")
#: Phones and GPUs: nominal TOPS, fp16 TFLOP/s, DRAM GB/s, memory in GB.
devices = partial(_copy, "devices")
#: Published speeds of known workloads, to calibrate the latency model on.
calibration = partial(_copy, "calibration")


def claim(claim_id: str) -> pd.Series:
    """One row of `claims()`; ParameterError where no claim has that id."""
    frame = claims().set_index("id")
    if claim_id not in frame.index:
        raise ParameterError(f"unknown claim {claim_id!r}; the claims are {', '.join(frame.index)}")
    return frame.loc[claim_id]


def claim_value(claim_id: str) -> float:
    """A claim's value as a number; ParameterError for an unknown claim, or a value that is blank or no number."""
    value = claim(claim_id)["value"]
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"claim {claim_id} has the value {value!r}, not one number") from error
    if number != number:
        raise ParameterError(f"claim {claim_id} has a blank value: it is not known, and a blank stays blank")
    return number
