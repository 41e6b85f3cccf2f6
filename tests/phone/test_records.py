"""Device records: round trip, refusal of malformed or unverified ones, and the honest refusal off macOS."""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mobivid_core.coreml import device_benchmark as benchmark
from mobivid_core.errors import ParameterError
from mobivid_core.phone.records import (
    DeviceRecord,
    compose,
    load_records,
    read_record,
    verified_packages,
)

HASH = "ab" * 32
RECORD = DeviceRecord(
    "Test phone", "iOS 0", "CPU_AND_NE", "x.mlpackage", HASH, [], [2.0, 1.0, 9.0], "unknown", "a test"
)


def _write(record: DeviceRecord, path: Path) -> None:
    path.write_text(json.dumps(asdict(record)))


def test_round_trip_and_table(tmp_path: Path) -> None:
    _write(RECORD, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == RECORD
    row = load_records(tmp_path, {HASH}).iloc[0]
    assert row["predict ms"] == 2.0 and row["evidence"] == "third-party"
    assert load_records(tmp_path / "missing", set()).empty


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"predict_ms": []}, "predict_ms: .*non-empty"),
        ({"predict_ms": [1.0, -2.0]}, "predict_ms/1: -2.0"),
        ({"sha256": "abc"}, "sha256: 'abc'"),
        ({"compute_units": "NPU"}, "CPU_AND_NE"),
        ({"device": " "}, "device: ' '"),
        ({"thermal_state": "hot"}, "nominal"),
        ({"schema": 2}, "schema: 1 was expected"),
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
    with pytest.raises(ParameterError, match="Additional properties .*extra"):
        read_record(tmp_path / "a.json")


def test_a_package_not_verified_here_is_refused(tmp_path: Path) -> None:
    _write(RECORD, tmp_path / "a.json")
    with pytest.raises(ParameterError, match="none of the packages verified"):
        load_records(tmp_path, {"cd" * 32})


def _bundle(folder: Path, *names: str) -> dict[str, dict]:
    runs = {"block": 80, "dit": 4}
    packages = {
        f"{name}.mlpackage": {
            "sha256": f"{i:02d}" * 32, "gates_passed": name != "broken",
            "runs_a_clip": next((n for word, n in runs.items() if word in name), 1),
        }
        for i, name in enumerate(names)
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"packages": packages, "frames": 49}))
    return verified_packages(folder)


def _records(names: tuple[str, ...]) -> list[DeviceRecord]:
    return [
        replace(RECORD, package=f"{name}.mlpackage", sha256=f"{i:02d}" * 32, predict_ms=[10.0])
        for i, name in enumerate(names)
    ]


def test_only_packages_that_passed_are_verified(tmp_path: Path) -> None:
    assert [entry["name"] for entry in _bundle(tmp_path, "block", "broken").values()] == ["block.mlpackage"]
    with pytest.raises(ParameterError, match="has no manifest"):
        verified_packages(tmp_path / "none")


def test_a_clip_is_composed_from_its_packages(tmp_path: Path) -> None:
    names = ("block", "decoder", "text_encoder")
    clip = compose(_records(names), _bundle(tmp_path, *names))
    assert clip["clip"] == pytest.approx(0.01 * (80 + 1 + 1)) and clip["frames/s"] == pytest.approx(49 / 0.82)
    names = ("dit_part1of2", "dit_part2of2", "block", "decoder")
    assert compose(_records(names), _bundle(tmp_path, *names))["clip"] == pytest.approx(0.01 * (4 + 4 + 1))
    with pytest.raises(ParameterError, match="needs the transformer"):
        compose(_records(("decoder",)), _bundle(tmp_path, "decoder"))
    two = [RECORD, replace(RECORD, device="Another")]
    with pytest.raises(ParameterError, match="one device"):
        compose(two, {HASH: {}})


def test_import_command_checks_schema_and_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _bundle(tmp_path, "block", "decoder")
    files = []
    for i, record in enumerate(_records(("block", "decoder"))):
        _write(record, tmp_path / f"{i}.json")
        files.append(str(tmp_path / f"{i}.json"))
    command = ["--import", *files, "--bundle", str(tmp_path), "--out", str(tmp_path / "out")]
    assert benchmark.main(command) == 0
    assert "frames/s (composed)" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
    _write(RECORD, tmp_path / "0.json")
    assert benchmark.main(command) == 2
    assert "none of the packages verified" in capsys.readouterr().err


@pytest.mark.skipif(platform.system() == "Darwin", reason="says what is missing elsewhere")
def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--device", "Test phone"]) == 2
    said = capsys.readouterr().err
    assert "macOS 14.4" in said and "Xcode" in said and "--team" in said
