"""Random damage to valid videos, tables and shards: only the project's own errors come out.

Each test runs for a share of a quarter of a minute and names the seed of a failure, so that it can be tried again.
"""

from __future__ import annotations

import io
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from mobivid_core.data.captioned import captioned_clips
from mobivid_core.data.folder import FolderReport, clips_from_folder
from mobivid_core.data.video_io import write_video
from mobivid_core.errors import MobiVidError

SECONDS = 15.0


def _video(path: Path, codec: str = "libx264") -> bytes:
    if codec == "ours":
        return write_video(path, np.full((20, 32, 32, 3), 90, np.uint8)).read_bytes()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 32, 32, "yuv420p", 1
        for index in range(20):
            picture = np.full((32, 32, 3), 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, a piece lost, doubled or moved, or the end cut off."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8, 40])):
        at = chance.randrange(len(out) or 1) if chance.random() < 0.5 else chance.randrange(min(len(out), 600) or 1)
        length = chance.choice([1, 2, 4, 16, 200])
        match chance.randrange(5):
            case 0:
                out[at : at + 1] = chance.choice([b"\0", b"\xff", b'"', b"\n", b"\x80", bytes([chance.randrange(256)])])
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length]
            case 3:
                out[at:at] = chance.randbytes(length)
            case 4 if chance.random() < 0.2:
                del out[at:]
    return bytes(out)


def fuzz(seconds: float, data: bytes, file: Path, read: Callable[[], object]) -> tuple[int, int]:
    """Damage, write and read until the time is over; returns how often reading went well and was refused."""
    end, seed, good, refused = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end:
        file.write_bytes(damaged(data, random.Random(seed)))
        try:
            read()
            good += 1
        except MobiVidError as error:
            assert str(error)
            refused += 1
        except Exception as error:
            pytest.fail(f"seed {seed} of {file.name}: {type(error).__name__}: {error}")
        seed += 1
    return good, refused


KINDS = {"a.mp4": "ours", "a.mkv": "libx264", "a.webm": "libvpx", "a.avi": "mpeg4", "a.ts": "libx264", "a.flv": "flv"}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_videos(tmp_path: Path, name: str) -> None:
    whole = _video(tmp_path / name, KINDS[name])
    good, refused = fuzz(
        SECONDS / len(KINDS), whole, tmp_path / name, lambda: clips_from_folder(tmp_path, frames=9, size=16)
    )
    assert good + refused > 5


def _captions(folder: Path) -> None:
    report = FolderReport(folder)
    list(captioned_clips(folder, report, frames=9, size=16))
    assert str(report)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_damaged_captions(tmp_path: Path, encoding: str) -> None:
    rows = 'file,caption\na.mp4,"a red, round thing"\nété.mp4,un café\nsub/b.mp4,"two ""words"""\n'
    good, refused = fuzz(SECONDS / 3, rows.encode(encoding), tmp_path / "captions.csv", lambda: _captions(tmp_path))
    assert good and refused


def test_damaged_shards(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    clip, buffer = _video(tmp_path / "clip.mp4", "ours"), io.BytesIO()
    (tmp_path / "clip.mp4").unlink()
    members = {"0.mp4": clip, "0.txt": "café".encode(), "1.mp4": clip, "1.json": b'{"caption": ["x", "y"]}'}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    good, _ = fuzz(SECONDS, buffer.getvalue(), tmp_path / "s.tar", lambda: _captions(tmp_path))
    assert good
