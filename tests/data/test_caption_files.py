"""Captions as people write them: each row and sample is read right or named with what is wrong; the rest is used."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mobivid_core.data.captioned import captioned_clips
from mobivid_core.data.folder import FolderReport
from mobivid_core.data.video_io import write_video
from mobivid_core.errors import ParameterError

ROWS = "a.mp4,a red card\nb.mp4,un café\n"
READ = {"a.mp4": ("a red card",), "b.mp4": ("un café",)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("clip") / "c.mp4", np.full((12, 32, 32, 3), 90, np.uint8)).read_bytes()


@pytest.fixture
def read(tmp_path: Path, clip: bytes):
    """Write `captions.csv` and the files a.mp4, b.mp4; returns captions by file, reasons by file, and the notes."""

    def result(table: str | bytes, files=("a.mp4", "b.mp4")):
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_bytes(clip)
        (tmp_path / "captions.csv").write_bytes(table.encode() if isinstance(table, str) else table)
        return _outcome(tmp_path)

    return result


def _outcome(source: Path):
    report = FolderReport(source)
    found = {video.name: video.captions for video in captioned_clips(source, report, frames=9, size=16)}
    return found, {skipped.name: skipped.reason for skipped in report.skipped}, report.notes


@pytest.mark.parametrize(
    "table",
    [
        ("file,caption\n" + ROWS).replace("\n", "\r\n").encode("utf-8-sig"),
        ("file,caption\n" + ROWS).replace("\n", "\r"),
        ("file;caption\n" + ROWS.replace(",", ";")),
        ("file\tcaption\n" + ROWS.replace(",", "\t")),
        ("file,caption\n" + ROWS).encode("utf-16"),
        ("file,caption\n" + ROWS).encode("utf-16-le"),
        "File, Caption\n" + ROWS.replace(",", ", "),
        "caption,rating,file\na red card,5,a.mp4\nun café,3,./b.mp4\n",
        "file,caption\nsub\\..\\a.mp4,a red card\nx/../b.mp4,un café,,\n\n",
    ],
)
def test_tables_of_any_writer_are_read_alike(read, table) -> None:
    assert read(table)[0] == READ


def test_another_encoding_is_detected_and_noted(read) -> None:
    found, _, notes = read(("file,caption\n" + ROWS + "b.mp4,une fenêtre près de l'église\n").encode("cp1252"))
    assert found["b.mp4"] == ("un café", "une fenêtre près de l'église")
    assert "is not UTF-8; read as cp125" in notes[0]


def test_a_row_that_cannot_be_trusted_is_named_and_the_rest_used(read) -> None:
    found, reasons, _ = read("file,caption\na.mp4,a cat, on a mat\nb.mp4,plain\n,x\n")
    assert found == {"b.mp4": ("plain",)}
    assert "line 2 of captions.csv has 3 fields, expected 2: put the caption in double quotes" in reasons["a.mp4"]
    assert reasons["captions.csv, line 4"] == "names no file"


@pytest.mark.parametrize("later", ["b.mp4,plain\n", 'b.mp4,plain\na.mp4,"fine"\n', 'b.mp4,plain\nb.mp4,a 5" disc\n'])
def test_an_unclosed_quote_does_not_swallow_the_rest(read, later: str) -> None:
    found, reasons, _ = read('file,caption\na.mp4,"one\n' + later)
    assert found["b.mp4"][0] == "plain"
    assert "line 2 of captions.csv cannot be read" in reasons["a.mp4"]


def test_names_agree_across_unicode_forms(read) -> None:
    name = "été.mp4"
    composed, taken_apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert read(f"file,caption\n{composed},one\n", (taken_apart,))[0] == {taken_apart: ("one",)}
    assert read(f"file,caption\n./{taken_apart},two\n", ())[0] == {taken_apart: ("two",)}


def test_repeated_empty_and_damaged_captions(read) -> None:
    found, reasons, _ = read("file,caption\na.mp4,one\n./a.mp4,one\na.mp4,uno\nb.mp4,o\0ne\n" + "x" * 5000 + ",long\n")
    assert found == {"a.mp4": ("one", "uno")}
    assert "NUL" in reasons["b.mp4"] and "no such file" in reasons["x" * 5000]


def test_what_is_no_table_is_refused(read) -> None:
    with pytest.raises(ParameterError, match="got a.mp4, a red card; make its first line file,caption"):
        read(ROWS)
    with pytest.raises(ParameterError, match="an empty file"):
        read("")
    with pytest.raises(ParameterError, match="captions.csv"):
        read(bytes(range(256)) * 8)


def _shard(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path.read_bytes()


@pytest.fixture
def shard(tmp_path: Path, clip: bytes):
    """Write a shard; `...` in a member stands for the clip. A good sample, zz, follows."""
    pytest.importorskip("webdataset")

    def result(*members: tuple[str, object]):
        given = [(name, clip if content is ... else content) for name, content in members]
        _shard(tmp_path / "s.tar", [*given, ("zz.mp4", clip), ("zz.txt", b"good")])
        found, reasons, _ = _outcome(tmp_path)
        assert found.pop("zz.mp4") == ("good",)
        return found, reasons

    return result


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (b"{caption: one}", "not valid JSON"),
        (json.dumps({"caption": None}).encode(), "the caption in its json is null"),
        (json.dumps({"caption": 3}).encode(), "the caption in its json is 3"),
        (json.dumps(["one"]).encode(), "got a list"),
        (json.dumps({"text": "one"}).encode(), "got the keys text"),
        (b'{"caption": ' + b"[" * 100_000, "not valid JSON"),
        (b'{"caption": " "}', "its caption is empty"),
    ],
)
def test_a_bad_caption_in_a_shard_is_named(shard, caption: bytes, reason: str) -> None:
    found, reasons = shard(("a.mp4", ...), ("a.json", caption))
    assert not found and reason in reasons["a"]


def test_samples_of_other_shapes(shard, clip: bytes) -> None:
    found, reasons = shard(
        ("a.v1.mp4", ...), ("a.v1.txt", b"one"), ("a.v2.mp4", ...), ("a.v2.txt", b"two"),
        ("b.webm", ...), ("b.json", json.dumps({"caption": ["x", "y"]}).encode()),
        ("c.video", ...), ("c.cls", b"3"), ("c.caption.txt", "café".encode("cp1252") * 4), ("._c.txt", b"\0\5"),
        ("d.mp4", ...), ("e.mp4", ...), ("d.txt", b"apart"), ("e.txt", b"too"), ("e.txt", b"again"), ("plain", b""),
    )  # fmt: skip
    assert found.pop("c.video")[0].startswith("caf")
    assert found == {"a.v1.mp4": ("one",), "a.v2.mp4": ("two",), "b.webm": ("x", "y")}
    assert all("do not lie side by side" in reasons[key] for key in "de")
    assert "second file of this name" in reasons["e.txt"] and "no suffix" in reasons["plain"]


def test_a_broken_shard_is_named_and_the_others_are_read(tmp_path: Path, clip: bytes) -> None:
    pytest.importorskip("webdataset")
    whole = _shard(tmp_path / "b.tar", {"0.mp4": clip, "0.txt": b"zero", "1.mp4": clip, "1.txt": b"one"})
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2 - 512].replace(b"0.", b"8."))
    (tmp_path / "c.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "d.tar").touch()
    (tmp_path / "notes.md").touch()
    found, reasons, _ = _outcome(tmp_path)
    assert {"0.mp4", "1.mp4"} <= set(found)
    assert all("breaks off or is damaged" in reasons[f"{name}.tar"] for name in "acd")
    assert "not a shard" in reasons["notes.md"]
