"""Measurements from real devices as JSON records: validated by a schema, tied to a package by its hash, composed.

Paper: its device numbers cannot be checked. A record here holds device, system, compute units, every sample, and the
SHA-256 of the package that ran, which must be the hash of a package verified on this machine. The project ships no
record: put yours, or others', into a folder and read it with `load_records`. device_record.schema.json beside this file
is for writers in other languages.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pandas as pd

from mobivid_core.errors import ParameterError
from mobivid_core.files import read_json, write_json

#: JSON schema of a record.
SCHEMA: dict = json.loads(Path(__file__).with_name("device_record.schema.json").read_text(encoding="utf-8"))
COMPUTE_UNITS: tuple[str, ...] = tuple(SCHEMA["properties"]["compute_units"]["enum"])
THERMAL_STATES: tuple[str, ...] = tuple(SCHEMA["properties"]["thermal_state"]["enum"])


@dataclass(frozen=True)
class DeviceRecord:
    """One package timed on one device; a ParameterError if a value does not fit the schema."""

    device: str  # product, e.g. "iPhone 16 Pro Max"
    os_version: str  # system and version, e.g. "iOS 18.5"
    compute_units: str  # one of `COMPUTE_UNITS`
    package: str  # file name of the package
    sha256: str  # `packages.package_hash` of it
    load_ms: list[float]  # samples of the loading time in milliseconds; may be empty
    predict_ms: list[float]  # samples of one prediction in milliseconds
    thermal_state: str  # one of `THERMAL_STATES`
    source: str  # who measured, and how
    schema: int = 1

    def __post_init__(self) -> None:
        _validate(asdict(self))

    def as_row(self) -> dict[str, object]:
        """Row of a table: medians, evidence and source."""
        return {
            "device": self.device, "os": self.os_version, "units": self.compute_units, "package": self.package,
            "load ms": median(self.load_ms) if self.load_ms else None,
            "predict ms": median(self.predict_ms), "samples": len(self.predict_ms),
            "thermal": self.thermal_state, "evidence": "third-party", "source": self.source,
        }  # fmt: skip


def keep_record(record: DeviceRecord, folder: Path) -> Path:
    """Save a record in a folder under a name made of what it measured; returns the file.

    A name never leads out of the folder, and a file that holds another record is never written over: the next one gets
    a number. The same record goes into the same file again.
    """
    parts = (record.device, record.os_version, Path(record.package).stem, record.compute_units)
    # the middle of a long name may go: other records of that name get a number
    stem = "-".join(re.sub(r"[^A-Za-z0-9.+-]+", "_", part).strip("._")[:60] or "x" for part in parts)
    taken = {path.name.casefold() for path in folder.glob("*")}  # some disks do not tell capitals apart
    names = itertools.chain([f"{stem}.json"], (f"{stem}-{n}.json" for n in itertools.count(2)))
    path = next(folder / name for name in names if name.casefold() not in taken or _holds(folder / name, record))
    write_json(path, asdict(record))
    return path


def _holds(path: Path, record: DeviceRecord) -> bool:
    try:
        return read_record(path) == record
    except ParameterError:
        return False


def read_record(path: Path) -> DeviceRecord:
    """Read and validate one record; a ParameterError names the file and what is wrong with it."""
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        values = json.loads(data.decode(encoding))
        if isinstance(values, list):
            raise ParameterError(f"it holds a list of {len(values)}; a file holds one record, so write one file each")
        if isinstance(values, dict) and isinstance(values.get("sha256"), str):
            values["sha256"] = values["sha256"].lower()  # some tools print hashes in capitals
        _validate(values)
        return DeviceRecord(**values)
    except (OSError, ValueError, RecursionError, ParameterError) as error:
        raise ParameterError(f"{path} is no valid device record: {error}") from error


def verified_packages(bundle: Path) -> dict[str, dict]:
    """SHA-256 -> manifest entry of the packages in a folder of `export` that passed verification."""
    path = bundle / "manifest.json"
    manifest = read_json(path, None)
    if manifest is None:
        raise ParameterError(f"{bundle} has no manifest.json; write it with `mobivid export`")
    try:
        passed = {name: entry for name, entry in manifest["packages"].items() if entry["gates_passed"]}
        return {e["sha256"]: {"name": name, "frames": manifest["frames"], **e} for name, e in passed.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ParameterError(f"{path} is damaged ({error!r}); export the bundle again") from error


def import_record(path: Path, verified: Collection[str]) -> DeviceRecord:
    """Read a record; a ParameterError if it is of no package that passed verification here, by its SHA-256."""
    record = read_record(path)
    if record.sha256 not in verified:
        raise ParameterError(
            f"{path} timed {record.package} with hash {record.sha256[:12]}, which is none of the packages verified "
            "here: it may be another model. Convert and verify that package first, or leave the record out"
        )
    return record


def load_records(folder: Path, verified: Collection[str]) -> pd.DataFrame:
    """All records (`*.json`) of a folder that may be missing, one row each; errors as `import_record`."""
    return pd.DataFrame([import_record(path, verified).as_row() for path in sorted(folder.glob("*.json"))])


def compose(records: Sequence[DeviceRecord], verified: Mapping[str, dict]) -> dict[str, float]:
    """Seconds a clip by package, of the whole "clip", and "frames/s", from records of its packages.

    Each package runs as often as the clip needs it. The transformer counts once: its whole or its parts where they were
    timed, else one block times their number. A ParameterError if the records are of several devices, systems or
    settings, several are of one package, or none is of the transformer or the decoder.
    """
    if len({(r.device, r.os_version, r.compute_units) for r in records}) != 1:
        raise ParameterError("a clip is composed from records of one device, one system and one setting of its units")
    if len({r.sha256 for r in records}) < len(records):
        raise ParameterError("a clip is composed from one record a package; there are several of one")
    entries = [verified[record.sha256] for record in records]
    if len({re.sub(r"_\d+bit(?=\.|$)", "", entry["name"]) for entry in entries}) < len(entries):
        raise ParameterError("a clip is composed from one record a model; one has records with weights of several bits")
    times = {
        entry["name"]: median(record.predict_ms) / 1e3 * entry["runs_a_clip"]
        for record, entry in zip(records, entries, strict=True)
    }
    if any("dit" in name for name in times):
        times = {name: s for name, s in times.items() if "block" not in name}
    if not any("dit" in n or "block" in n for n in times) or not any("decoder" in n for n in times):
        raise ParameterError(f"a clip needs the transformer (or a block) and the decoder; there is {', '.join(times)}")
    total = sum(times.values())
    return times | {"clip": total, "frames/s": entries[0]["frames"] / total}


def _validate(values: object) -> None:
    """Refuse what the schema refuses, naming the place, what was got and what the schema asks for."""
    import jsonschema

    _check_values(values)
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SCHEMA).iter_errors(values))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the record"
        raise ParameterError(f"{place}: {error.message:.300}")


def _check_values(values: object, place: str = "") -> None:
    """Refuse what JSON schemas let through: numbers that are none, text that cannot be written."""
    if isinstance(values, (dict, list)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            _check_values(value, f"{place}/{key}" if place else str(key))
    elif isinstance(values, float) and not math.isfinite(values):
        name = "NaN" if math.isnan(values) else values
        raise ParameterError(f"{place or 'the record'}: {name} is no finite number; leave out samples that failed")
    elif isinstance(values, str):
        try:
            values.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ParameterError(f"{place}: text that is no valid Unicode") from error
