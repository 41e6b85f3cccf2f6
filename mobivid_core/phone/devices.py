"""Devices to compare: peak, bandwidth and memory, each with its source and evidence class.

Paper: an iPhone 16 Pro Max and an A100. Values come from data/paper/devices.csv; unknown ones stay None.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mobivid_core.errors import ParameterError
from mobivid_core.published import devices

NEURAL_ENGINE = "Neural Engine"
NPU = "Hexagon NPU"


@dataclass(frozen=True)
class Device:
    """One engine of one device; unknown values are None."""

    name: str  # the product
    chip: str
    engine: str  # "Neural Engine", "GPU", ...
    tflops: float | None  # peak float16 TFLOP/s
    int8_tops: float | None  # advertised integer peak in 1e12 operations/s
    gb_s: float | None  # memory bandwidth in GB/s
    ram_gb: float | None
    evidence: str  # class of the weakest of these numbers
    other_tflops: float | None = None  # another figure of the peak, where sources disagree: a case, never averaged


def load_devices() -> list[Device]:
    """All devices of data/paper/devices.csv; blank cells become None."""
    rows = devices().astype(object)
    rows = rows.where(rows.notna(), None).assign(device=rows["device"].fillna(rows["chip"]))
    columns = ["device", "chip", "engine", "fp16_tflops", "nominal_tops", "dram_gb_s", "ram_gb", "evidence"]
    return [Device(*row) for row in rows[[*columns, "fp16_tflops_other_case"]].itertuples(index=False)]


def find_device(chip: str, engine: str = NEURAL_ENGINE) -> Device:
    """One device by chip and engine; a ParameterError if none or several match."""
    found = [d for d in load_devices() if (d.chip, d.engine) == (chip, engine)]
    if len(found) != 1:
        known = ", ".join(sorted({f"{d.chip} ({d.engine})" for d in load_devices()}))
        raise ParameterError(f"{len(found)} devices are {chip!r} ({engine}); the known ones are {known}")
    return found[0]


def with_assumed_peak(device: Device) -> Device:
    """A device of unknown float16 peak with half of its integer peak, where that is known: a scenario, class `assumed`.

    That is what data/paper/devices.csv takes for Apple's 35 TOPS chips. Other devices come back unchanged.
    """
    if device.tflops is not None or device.int8_tops is None:
        return device
    return replace(device, tflops=device.int8_tops / 2, evidence="assumed")
