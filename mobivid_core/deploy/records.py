"""Measurements from real devices as JSON records: validated, and tied to a package by its hash.

Paper: its device numbers come without a way to check them. A record here names device, system, compute units, every
sample, and the SHA-256 of the package that ran, which must be the hash of a package verified on this machine. The
project ships no record: put yours, or others', into a folder and read it with `load_records`.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from mobivid_core.errors import ParameterError
from mobivid_core.files import write_json

COMPUTE_UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
THERMAL_STATES = ("nominal", "fair", "serious", "critical", "unknown")


@dataclass(frozen=True)
class DeviceRecord:
    """One package timed on one device.

    Attributes:
        device: Product, e.g. "iPhone 16 Pro Max".
        os_version: System and version, e.g. "iOS 18.5".
        compute_units: One of `COMPUTE_UNITS`.
        package: File name of the package.
        sha256: `packages.package_hash` of it.
        load_ms: Samples of the loading time in milliseconds; may be empty.
        predict_ms: Samples of one prediction in milliseconds.
        thermal_state: One of `THERMAL_STATES`.
        source: Who measured, and how.
    """

    device: str
    os_version: str
    compute_units: str
    package: str
    sha256: str
    load_ms: list[float]
    predict_ms: list[float]
    thermal_state: str
    source: str

    def __post_init__(self) -> None:
        for name in ("device", "os_version", "package", "source"):
            _require(isinstance(getattr(self, name), str) and getattr(self, name).strip(), name, "text", self)
        _require(self.compute_units in COMPUTE_UNITS, "compute_units", " or ".join(COMPUTE_UNITS), self)
        _require(self.thermal_state in THERMAL_STATES, "thermal_state", " or ".join(THERMAL_STATES), self)
        hexadecimal = (
            isinstance(self.sha256, str) and len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef")
        )
        _require(hexadecimal, "sha256", "64 hexadecimal digits", self)
        for name in ("load_ms", "predict_ms"):
            samples = getattr(self, name)
            numbers = isinstance(samples, list) and all(type(v) in (int, float) and 0 < v < 1e7 for v in samples)
            _require(numbers and (samples or name == "load_ms"), name, "a list of positive milliseconds", self)

    def as_row(self) -> dict[str, object]:
        """Row of a table: medians, evidence and source."""
        return {
            "device": self.device, "os": self.os_version, "units": self.compute_units, "package": self.package,
            "load ms": statistics.median(self.load_ms) if self.load_ms else None,
            "predict ms": statistics.median(self.predict_ms), "samples": len(self.predict_ms),
            "thermal": self.thermal_state, "evidence": "third-party", "source": self.source,
        }  # fmt: skip


def write_record(record: DeviceRecord, path: Path) -> None:
    """Save a record as JSON."""
    write_json(Path(path), asdict(record))


def read_record(path: Path) -> DeviceRecord:
    """Read and validate one record.

    Raises:
        ParameterError: Names the file and what is wrong with it.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {f.name for f in fields(DeviceRecord)}
        if not isinstance(values, dict) or set(values) != known:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ParameterError(f"it needs exactly the keys {sorted(known)}, got {found}")
        return DeviceRecord(**values)
    except (ValueError, ParameterError) as error:
        raise ParameterError(f"{path} is no valid device record: {error}") from error


def load_records(folder: Path, verified: set[str]) -> pd.DataFrame:
    """All records of a folder whose package was verified here.

    Args:
        folder: Holds `*.json`; may be missing.
        verified: SHA-256 of packages that passed verification on this machine.

    Returns:
        One row a record (none if there are none).

    Raises:
        ParameterError: A record is malformed, or of a package that was not verified.
    """
    rows = []
    for path in sorted(Path(folder).glob("*.json")) if Path(folder).is_dir() else []:
        record = read_record(path)
        if record.sha256 not in verified:
            raise ParameterError(
                f"{path} timed {record.package} with hash {record.sha256[:12]}, which is none of the packages verified "
                "here: it may be another model. Convert and verify that package first, or leave the record out"
            )
        rows.append(record.as_row())
    return pd.DataFrame(rows)


def _require(good: object, name: str, expected: str, record: DeviceRecord) -> None:
    if not good:
        raise ParameterError(f"{name} must be {expected}, got {getattr(record, name)!r}")
