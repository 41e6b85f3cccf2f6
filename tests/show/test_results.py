"""Results are written, listed and stable to the byte."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from mobivid_core.errors import ParameterError, ProfileError
from mobivid_core.files import read_json, sha256, write_json
from mobivid_core.measure.intervals import Interval, share
from mobivid_core.show import results as registry
from mobivid_core.show.headlines import number_text
from mobivid_core.show.results import Results, cell_text
from mobivid_core.show.style import use_style


@pytest.fixture()
def results(runs: Path) -> Results:
    return Results(notebook="01_vae_compression", profile="smoke")


def _figure() -> plt.Figure:
    use_style()
    fig, axis = plt.subplots()
    axis.plot([0, 1], [1, 3], label="a line")
    axis.legend()
    return fig


def test_figures_are_stable_to_the_byte_and_listed(results: Results) -> None:
    plt.close("all")  # whatever other tests left open
    data = pd.DataFrame({"x": [1, 2], "y": [0.123456789, None]})
    results.figure("toy", _figure(), finding="It rises.", evidence="measured", paper_item="Table 3", data=data)
    first = {p.name: sha256(p) for p in results.folder.iterdir()}
    results.figure("toy", _figure(), finding="It rises.", evidence="measured", paper_item="Table 3", data=data)
    assert first == {p.name: sha256(p) for p in results.folder.iterdir()}
    entry = registry.manifest("smoke")["toy"]
    assert entry["files"] == {name: first[name] for name in ("toy.png", "toy.csv")}
    assert (entry["paper_item"], entry["evidence"], entry["meaningful"]) == ("Table 3", "measured", False)
    assert (results.folder / "toy.csv").read_text() == "x,y\n1,0.123457\n2,\n"
    assert plt.get_fignums() == []


def test_blank_cells_stay_blank_and_the_index_shows_only_if_named(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    displayed = []
    monkeypatch.setattr("IPython.display.display", lambda output, raw=False: displayed.append((output, raw)))
    frame = pd.DataFrame({"ours": [1.5, None], "note": [None, "<b>"]})
    for shown, text in (
        (frame, "ours,note\n1.5,\n,<b>\n"),
        (frame.rename_axis("row"), "row,ours,note\n0,1.5,\n1,,<b>\n"),
    ):
        results.table("toy_table", shown, finding="A table.", evidence="derived")
        assert (results.folder / "toy_table.csv").read_text() == text
    first, _, second, _ = (data for data, _ in displayed)
    assert "nan" not in first["text/html"].lower() and "&lt;b&gt;" in first["text/html"]
    assert "row" not in first["text/plain"] and "row" in second["text/html"]


def test_headlines_are_replaced_by_id_and_sorted(results: Results) -> None:
    results.headline("psnr", Interval(20.0, 19, 21, kind="95 % bootstrap", over="clips", n=4), unit="dB")
    results.headline("accuracy", 0.5)
    results.headline("psnr", 21.123456789, unit="dB")
    results.headline("ratio", Interval(2, math.nan, math.nan, kind="no interval", over="runs", n=1))
    results.headline("share", share(3, 4))
    text = (results.folder / registry.HEADLINES).read_text().splitlines()
    assert text[0] == "id,value,low,high,unit,n,interval,evidence,profile,notebook"
    assert text[1:] == [
        "accuracy,0.5,,,,,,measured,smoke,01_vae_compression",
        "psnr,21.1235,,,dB,,,measured,smoke,01_vae_compression",
        'ratio,2,,,,1,"no interval, runs",measured,smoke,01_vae_compression',
        'share,0.75,0.300642,0.954413,,4,"95 % Wilson, clips",measured,smoke,01_vae_compression',
    ]
    assert registry.headlines("smoke").set_index("id").loc["psnr", "value"] == pytest.approx(21.1235)
    results.headline("share", share(3, 4), n=2)  # what is given counts: such as captions of which clips were made
    assert registry.headlines("smoke").set_index("id").loc["share", "n"] == 2


def test_a_headline_that_could_not_be_had_leaves_none_of_an_earlier_run(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    results.headline("psnr", 20.0)
    results.headline("accuracy", 0.5)
    results.headline("psnr", None, unit="dB")
    assert list(registry.headlines("smoke")["id"]) == ["accuracy"]
    assert "headline psnr: not measured" in capsys.readouterr().out
    noted = json.loads(registry.registered_path("01_vae_compression", "smoke").read_text())
    assert noted["psnr"]["content"] == {}


def test_which_run_wrote_a_result_is_noted_outside_the_manifest(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.RUN_ID_VARIABLE, "abc")
    Results(notebook="01_vae_compression", profile="smoke").headline("psnr", 1.0)
    noted = read_json(registry.registered_path("01_vae_compression", "smoke"))
    assert noted["psnr"]["run"] == "abc"
    assert "abc" not in (results.folder / registry.HEADLINES).read_text()


def test_bad_registrations_are_refused(results: Results) -> None:
    frame = pd.DataFrame({"a": [1]})
    with pytest.raises(ParameterError, match="lower-case"):
        results.table("Bad id", frame, finding="x", evidence="measured")
    with pytest.raises(ParameterError, match="evidence 'guess' of 'a' must be one of measured, recorded, derived"):
        results.table("a", frame, finding="x", evidence="guess")
    with pytest.raises(ParameterError, match="needs a finding"):
        results.table("a", frame, finding=" ", evidence="measured")
    with pytest.raises(ParameterError, match="headline 'a' is nan"):
        results.headline("a", float("nan"))
    with pytest.raises(ParameterError, match=r"shape \(B, 3, T, H, W\), got \(3, 4\)"):
        results.media("a", torch.zeros(3, 4), finding="x", evidence="measured")
    with pytest.raises(ProfileError):
        Results(notebook="01_vae_compression", profile="big")


def test_clips_are_written_as_mp4_webp_and_strip(results: Results) -> None:
    clips = torch.rand(2, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    results.media("toy_clips", clips, finding="Noise.", evidence="measured", titles=["a", "b"])
    for suffix in ("mp4", "webp", "jpg"):
        assert (results.folder / f"toy_clips.{suffix}").stat().st_size > 100
    assert set(registry.manifest("smoke")["toy_clips"]["files"]) == {f"toy_clips.{s}" for s in ("mp4", "webp", "jpg")}


def test_files_of_a_format_no_longer_written_are_deleted(results: Results) -> None:
    clips = torch.zeros(1, 3, 2, 16, 16)
    results.media("toy_clips", clips, finding="Grey.", evidence="measured")
    listing = read_json(results.folder / registry.MANIFEST)
    listing["toy_clips"]["files"]["toy_clips.gif"] = "of an earlier version"
    write_json(results.folder / registry.MANIFEST, listing)
    for name in ("toy_clips.gif", "toy_clips_other.gif"):
        (results.folder / name).touch()
    results.media("toy_clips", clips, finding="Grey.", evidence="measured")
    names = {path.name for path in results.folder.iterdir()}
    assert "toy_clips.gif" not in names and {"toy_clips.webp", "toy_clips_other.gif"} <= names


def test_forgetting_touches_only_the_notebooks_own_results(results: Results) -> None:
    frame = pd.DataFrame({"a": [1]})
    results.table("kept", frame, finding="x", evidence="measured")
    results.table("old", frame, finding="x", evidence="measured")
    other = Results(notebook="02_server_dit", profile="smoke")
    other.headline("others", 1.0)
    assert results.forget_others({"kept"}) == ["old"]
    assert not (results.folder / "old.csv").exists() and (results.folder / "kept.csv").exists()
    assert list(registry.headlines("smoke")["id"]) == ["others"]


def test_cells_are_rounded_for_reading() -> None:
    shown = [cell_text(v) for v in (0.0, 1.23456, -0.5, 1234567.0, 0.00001234, None, float("nan"), 3, "x")]
    assert shown == ["0", "1.235", "\N{MINUS SIGN}0.5", "1.23e+06", "1.23e-05", "", "", "3", "x"]


def test_counts_are_kept_to_the_last_digit() -> None:
    assert number_text(959_697_024) == "959697024"
    assert (number_text(0.123456789), number_text(None)) == ("0.123457", "")
