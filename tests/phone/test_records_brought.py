"""Device records as others send them: encodings, capitals, lists, names that lead elsewhere, numbers that are none."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mobivid_core.coreml import device_benchmark as benchmark
from mobivid_core.coreml.mil import Operation, Program, Slot
from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.phone.records import DeviceRecord, compose, keep_record, read_record, verified_packages

HASHES = {"dit": "ab" * 32, "decoder": "cd" * 32}
DIT = DeviceRecord(
    "iPhone 16 Pro Max", "iOS 18.5", "CPU_AND_NE", "dit.mlpackage", HASHES["dit"], [100.0], [10.0, 11.0, 12.0],
    "nominal", "me",
)  # fmt: skip
TEXT = json.dumps(asdict(DIT))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    packages = {f"{n}.mlpackage": {"sha256": h, "gates_passed": True, "runs_a_clip": 1} for n, h in HASHES.items()}
    (folder / "manifest.json").write_text(json.dumps({"packages": packages, "frames": 17}))
    return folder


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.replace(HASHES["dit"], HASHES["dit"].upper()).encode(),
        TEXT.replace(", ", ",\r\n").encode(),
    ],
    ids=["byte-order mark", "UTF-16", "capitals in the hash", "Windows line ends"],
)
def test_the_same_record_in_another_dress(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    assert read_record(tmp_path / "a.json") == DIT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("11.0", "NaN"), "predict_ms/1: NaN is no finite number"),
        (TEXT.replace("11.0", "-Infinity"), "predict_ms/1: -inf is no finite number"),
        (TEXT.replace("100.0", "NaN"), "load_ms/0: NaN"),
        (TEXT.replace("11.0", "1e999"), "predict_ms/1: inf"),
        (TEXT.replace("11.0", "0.0"), "predict_ms/1: 0.0"),
        (TEXT.replace("11.0", '"11"'), "predict_ms/1: '11'"),
        (f"[{TEXT}, {TEXT}]", "a list of 2; a file holds one record"),
        (TEXT.replace("iPhone 16", r"\ud800"), "device: text that is no valid Unicode"),
        (TEXT[:100], "no valid device record"),
        ("[" * 100_000, "no valid device record"),
        ("", "no valid device record"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ParameterError, match=message) as refused:
        read_record(tmp_path / "a.json")
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("name", ["../../escaped", "/etc/passwd", "a/b\\c", "..", ".hidden", "x" * 300, "夏", "con\0"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for record in (replace(DIT, device=name), replace(DIT, os_version=name), replace(DIT, package=f"{name}.mlpackage")):
        path = keep_record(record, out)
        assert path.parent == out and path.is_file() and read_record(path) == record
        assert not path.name.startswith(".")
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(out.iterdir()) and len(list(out.iterdir())) == 3


def test_two_records_never_share_a_file(tmp_path: Path) -> None:
    records = [
        DIT,
        replace(DIT, compute_units="CPU_AND_GPU"),
        replace(DIT, os_version="iOS 17.0"),
        replace(DIT, predict_ms=[77.0]),
        replace(DIT, device="IPHONE 16 PRO MAX"),
        replace(DIT, device="iPhone/16 Pro Max"),
    ]
    for _ in range(2):  # the same ones once more change nothing
        paths = [keep_record(record, tmp_path) for record in records]
        assert len({p.name.casefold() for p in paths}) == len(records) == len(list(tmp_path.iterdir()))
        assert [read_record(p) for p in paths] == records
    assert paths[0].name == "iPhone_16_Pro_Max-iOS_18.5-dit-CPU_AND_NE.json"


def test_importing_keeps_all_or_nothing(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, out = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "out"
    good.write_text(TEXT)
    bad.write_text(TEXT.replace("11.0", "NaN"))
    command = ["--bundle", str(bundle), "--out", str(out), "--import", str(good)]
    assert benchmark.main([*command, str(bad)]) == 2 and not out.exists()
    err = capsys.readouterr().err
    assert "bad.json" in err and "NaN" in err and err.count("\n") == 1
    assert benchmark.main(command) == 0 and len(list(out.iterdir())) == 1


def test_a_clip_is_not_composed_of_what_does_not_belong_together(bundle: Path) -> None:
    verified = verified_packages(bundle)
    decoder = replace(DIT, package="decoder.mlpackage", sha256=HASHES["decoder"])
    assert compose([DIT, decoder], verified)["clip"] == pytest.approx(0.022)
    with pytest.raises(ParameterError, match="one system"):
        compose([DIT, replace(decoder, os_version="iOS 17.0")], verified)
    with pytest.raises(ParameterError, match="several of one"):
        compose([DIT, decoder, replace(DIT, predict_ms=[77.0])], verified)
    small = {"ef" * 32: {**verified[HASHES["decoder"]], "name": "decoder_4bit.mlpackage"}}
    with pytest.raises(ParameterError, match="several bits"):
        compose([DIT, decoder, replace(decoder, sha256="ef" * 32)], verified | small)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"packages": [], "frames": 3}', '{"packages": {"a": {}}}'])
def test_a_damaged_manifest_is_one_error(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ParameterError, match="damaged"):
        verified_packages(tmp_path)


def test_the_palette_of_small_weights_is_no_value_of_the_program() -> None:
    """A convolution's weight of rank 4 has a palette of rank 6, which no operation reads."""
    shapes = {"indices": (8, 4, 1, 1), "palette": (1, 1, 1, 1, 16, 1), "weight": (8, 4, 1, 1)}
    constants = {name: np.zeros(shape) for name, shape in shapes.items()}
    run = Operation("conv", {"x": "x", "weight": "weight"}, [Slot("y", (1, 8, 2, 2), "fp16")])
    assert Program([], constants, [run], ["y"]).largest_rank() == 4
    seen = Operation("gather", {"x": "palette"}, [Slot("z", (1,), "fp16")])
    assert Program([], constants, [run, seen], ["y"]).largest_rank() == 6


def _mutated(text: str, rng: random.Random) -> bytes:
    """The record with something changed: bytes, values of any kind, or keys."""
    way = rng.randrange(3)
    if way == 0:
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        return bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.2 else data)
    values = json.loads(text)
    odd = [
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x" * 999,
        "\ud800",
        "../..",
        [],
        [[]],
        {},
        {"a": 1},
    ]
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*values, "extra"])
        if way == 1:
            values[key] = rng.choice([*odd, *values.values()])
        elif isinstance(values.get(key), list):
            values[key] = rng.choices([*odd, 1.0, 2, 3.5], k=rng.randint(0, 4))
        else:
            values.pop(key, None)
    return json.dumps(values).encode()


def test_whatever_a_record_holds_only_the_projects_own_errors_come_out(tmp_path: Path) -> None:
    rng, path, out = random.Random(0), tmp_path / "a.json", tmp_path / "out"
    read, end = 0, time.monotonic() + 8
    for _ in range(3000):
        if time.monotonic() > end:
            break
        path.write_bytes(_mutated(TEXT, rng))
        try:
            record = read_record(path)
        except MobiVidError:
            continue
        read += 1
        assert read_record(keep_record(record, out)) == record
        record.as_row()
    assert read and all(p.parent == out for p in out.rglob("*"))
