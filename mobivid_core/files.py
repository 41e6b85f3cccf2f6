"""Atomic file writes and content hashes.

A run may be killed at any moment: everything that a later step reads is first written beside its
place and then moved there in one step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobivid_core.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

#: Names that `tempfile` makes beside a file or folder: `.headlines-k3x_a81b.csv`.
_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")
_DAY_S = 24 * 3600


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full disk, a used-up quota or a read-only folder into one RunError about `what` is being written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no space left on the disk while writing {what}. Nothing half-written was kept: "
                "free some space and run the same command again, it resumes."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(
                f"{what} cannot be written ({error}). Make its folder writable, or set MOBIVID_RUNS "
                "to a folder that is."
            ) from error
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path` in one step (see `disk_errors`)."""
    with disk_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)  # mkstemp makes private files; results are for everybody
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Delete what killed processes left half-written in `folder`; younger than a day, it may still be in use."""
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may have cleared it, or own it
            if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > _DAY_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and make sure that it reached the disk."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON with a closing newline, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, default: Any = None) -> Any:
    """Read JSON; `default` if the file is missing, a RunError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise RunError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def read_tensors(path: Path | None) -> dict[str, Tensor] | None:
    """Tensors of a cached safetensors file; None if it is missing or torn, so that the caller makes it anew."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path) if path and path.is_file() else None
    except (SafetensorError, OSError, ValueError):
        return None


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Found:
    """What lies below a folder."""

    files: list[Path]  # in name order, links followed; a file with several names is there once
    passed: dict[str, str]  # name below the folder -> why it is not among the files
    hidden: list[str]  # names that begin with a dot; what is below them is not looked at


def find_files(folder: Path) -> Found:
    """Files below a folder somebody else made: links are followed, and whatever cannot be read is named."""
    files, passed, hidden, known = [], {}, [], {}

    def name(path: str | Path) -> str:
        return Path(path).relative_to(folder).as_posix()

    def first_of(path: Path) -> bool:
        """Whether this file or folder has not been seen under another name."""
        status = path.stat()
        first = known.setdefault((status.st_dev, status.st_ino), path)
        if first is not path:
            passed[name(path)] = f"the same as {name(first)}"
        return first is path

    def unreadable(error: OSError) -> None:
        passed[name(error.filename)] = f"cannot be entered ({error.strerror})"

    known[(folder.stat().st_dev, folder.stat().st_ino)] = folder
    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        hidden += [name(Path(place) / own) for own in (*folders, *names) if own.startswith(".")]
        folders[:] = sorted(own for own in folders if not own.startswith(".") and first_of(Path(place) / own))
        for path in (Path(place) / own for own in sorted(names) if not own.startswith(".")):
            try:
                if not path.is_file():
                    passed[name(path)] = "a link to nothing" if path.is_symlink() else "not a regular file"
                elif first_of(path):
                    files.append(path)
            except OSError as error:
                passed[name(path)] = f"cannot be read ({error.strerror})"
    return Found(sorted(files), passed, sorted(hidden))


def tree_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by relative POSIX path; hidden files are left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    relative = [(p, p.relative_to(folder)) for p in files]
    return {r.as_posix(): sha256(p) for p, r in relative if not any(part.startswith(".") for part in r.parts)}
