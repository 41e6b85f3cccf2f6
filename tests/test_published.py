"""Published numbers: complete, classed, never filled in."""

from __future__ import annotations

import pandas as pd
import pytest

from mobivid_core import published as book
from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.evidence import EVIDENCE


@pytest.mark.parametrize("name", ["claims", "published", "vaes", "tables", "devices", "calibration"])
def test_every_row_has_an_evidence_class(name: str) -> None:
    frame = getattr(book, name)()
    assert len(frame) and frame["evidence"].isin(EVIDENCE).all()


def test_values_and_blanks() -> None:
    assert book.claim_value("C05") == 83.09
    assert book.claim("C17")["value"] == "512x384"
    with pytest.raises(ParameterError, match="not one number"):
        book.claim_value("C17")
    with pytest.raises(ParameterError, match="a blank stays blank"):
        book.claim_value("C26" if pd.isna(book.claim("C26")["value"]) else "C29")
    with pytest.raises(ParameterError, match="unknown claim 'C99'"):
        book.claim("C99")


def test_callers_cannot_change_the_book() -> None:
    frame = book.claims()
    frame["value"] = "0"
    assert book.claim_value("C05") == 83.09


def test_a_row_without_evidence_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "tables.csv").write_text("item,title as far as known,evidence,known cells,unknown\nT,t,,,\n")
    monkeypatch.setattr(book, "data_dir", lambda: tmp_path)
    book._read.cache_clear()
    try:
        with pytest.raises(MobiVidError, match="without a known evidence class"):
            book.tables()
        with pytest.raises(MobiVidError, match="claims.csv is missing"):
            book.claims()
    finally:
        book._read.cache_clear()


@pytest.mark.parametrize(
    ("system", "name"),
    [("LTX-Video", "AutoencoderKLLTXVideo"), ("HunyuanVideo", "AutoencoderKLHunyuanVideo"),
     ("Mochi 1", "AutoencoderKLMochi"), ("Allegro", "AutoencoderKLAllegro")],
)  # fmt: skip
def test_ratios_of_other_vaes_are_those_of_their_code(system, name):
    """The table says what diffusers' own classes have by default; these four state all three numbers."""
    import diffusers
    import torch

    row = book.vaes().set_index("system").loc[system]
    with torch.device("meta"):
        vae = getattr(diffusers, name)()
    space = vae.spatial_compression_ratio
    time = getattr(vae, "temporal_compression_ratio", None) or vae.config.temporal_compression_ratio
    assert (time, space, space) == (row.time, row.height, row.width)
    assert vae.config.latent_channels == row.latent_channels
