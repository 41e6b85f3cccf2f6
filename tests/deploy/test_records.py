"""Device records: round trip, refusal of malformed or unverified ones, and the honest refusal off macOS."""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mobivid_core.deploy import benchmark
from mobivid_core.deploy.records import DeviceRecord, load_records, read_record, write_record
from mobivid_core.errors import ParameterError

HASH = "ab" * 32
RECORD = DeviceRecord(
    "Test phone", "iOS 0", "CPU_AND_NE", "x.mlpackage", HASH, [], [2.0, 1.0, 9.0], "unknown", "a test"
)


def test_round_trip_and_table(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == RECORD
    row = load_records(tmp_path, {HASH}).iloc[0]
    assert row["predict ms"] == 2.0 and row["evidence"] == "third-party"
    assert load_records(tmp_path / "missing", set()).empty


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"predict_ms": []}, "predict_ms must be a list of positive"),
        ({"predict_ms": [1.0, -2.0]}, "predict_ms"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"compute_units": "NPU"}, "CPU_AND_NE"),
        ({"device": " "}, "device must be text"),
        ({"thermal_state": "hot"}, "nominal"),
    ],
)
def test_malformed_values_are_named(change: dict, text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        replace(RECORD, **change)


def test_malformed_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ParameterError, match="a.json is no valid device record"):
        read_record(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(asdict(RECORD) | {"extra": 1}))
    with pytest.raises(ParameterError, match="exactly the keys"):
        read_record(tmp_path / "a.json")


def test_a_package_not_verified_here_is_refused(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path / "a.json")
    with pytest.raises(ParameterError, match="none of the packages verified"):
        load_records(tmp_path, {"cd" * 32})


@pytest.mark.skipif(platform.system() == "Darwin", reason="says what is missing elsewhere")
def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--package", "x.mlpackage", "--device", "Test phone"]) == 2
    said = capsys.readouterr().err
    assert "macOS 14.4" in said and "Xcode" in said and "--team" in said
