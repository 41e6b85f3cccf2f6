r"""Command: time a package on a connected iPhone through coremltools' own remote benchmarker, and write a record.

    python -m mobivid_core.deploy.benchmark --package packages/block/mobile_block.mlpackage --team ABCDE12345 \
        --device "iPhone 16 Pro Max" --out measurements/

Paper: the speed on an iPhone 16 Pro Max. Needs macOS 14.4, Xcode, a signing team and an unlocked iPhone in Developer
Mode; what is missing is said, one line each. Each remote call waits ten seconds at most, so a block, the decoder and
the text encoder are timed one by one and composed. The remote part follows coremltools 9's code; it has not been run
by the project, which has no such phone.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mobivid_core.deploy.coreml_library import import_coremltools
from mobivid_core.deploy.packages import package_hash
from mobivid_core.deploy.records import COMPUTE_UNITS, THERMAL_STATES, DeviceRecord, write_record
from mobivid_core.errors import ExportError, MobiVidError

_MACOS = (14, 4)


def missing_requirements(team: str | None) -> list[str]:
    """What this machine lacks to time a package on a phone, one sentence each; empty if nothing."""
    lacks = []
    if platform.system() != "Darwin":
        lacks.append(f"macOS 14.4 or later is needed; this is {platform.system()}")
    elif tuple(int(n) for n in platform.mac_ver()[0].split(".")[:2]) < _MACOS:
        lacks.append(f"macOS 14.4 or later is needed; this is {platform.mac_ver()[0]}")
    if shutil.which("xcrun") is None:
        lacks.append("Xcode's command-line tools are needed (`xcode-select --install`, then Xcode 15 or later)")
    elif subprocess.run(["xcrun", "--find", "devicectl"], capture_output=True, check=False).returncode:
        lacks.append("`devicectl` is not in this Xcode; install Xcode 15 or later")
    if not team:
        lacks.append("a signing team is needed: pass --team with the ten-character id of your Apple developer team")
    return lacks


async def _measure(package: Path, units: str, team: str, iterations: int) -> tuple[str, list[float], list[float]]:
    """System, load and predict samples of the first connected iPhone."""
    ct = import_coremltools()
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
    from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceType

    phones = Device.get_connected_devices(DeviceType.IPHONE)
    if not phones:
        raise ExportError("no iPhone is connected; connect one by cable, unlock it and switch Developer Mode on")
    phone = await phones[0].prepare_for_model_debugging(AppSigningCredentials(development_team=team))
    model = ct.models.MLModel(str(package), compute_units=ct.ComputeUnit[units])
    benchmarker = MLModelBenchmarker(model, phone)
    loads = await benchmarker.benchmark_load(iterations=3)
    predictions = await benchmarker.benchmark_predict(iterations=iterations, warmup=True)
    return f"iOS {phone.os_version}", list(loads.samples), list(predictions.samples)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if a record was written, 2 if something is missing."""
    parser = argparse.ArgumentParser(prog="python -m mobivid_core.deploy.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--package", type=Path, required=True, help="a package written by mobivid_core.deploy.export")
    parser.add_argument(
        "--device", required=True, help="product name for the record (the phone's own name may be personal)"
    )
    parser.add_argument("--team", help="Apple developer team id, for signing coremltools' model runner")
    parser.add_argument(
        "--units", choices=COMPUTE_UNITS, default="CPU_AND_NE", help="compute units (default: CPU_AND_NE)"
    )
    parser.add_argument("--iterations", type=int, default=10, help="timed predictions after one warm-up (default: 10)")
    parser.add_argument("--thermal", choices=THERMAL_STATES, default="unknown", help="the phone's thermal state")
    parser.add_argument("--out", type=Path, default=Path("measurements"), help="folder for the record")
    options = parser.parse_args(arguments)
    if lacks := missing_requirements(options.team):
        print("cannot time on a phone from here:", *[f"- {line}" for line in lacks], sep="\n", file=sys.stderr)
        return 2
    try:
        digest = package_hash(options.package)
        measured = asyncio.run(_measure(options.package, options.units, options.team, options.iterations))
        system, loads, predictions = measured
        source = "coremltools MLModelBenchmarker over devicectl"
        record = DeviceRecord(
            options.device,
            system,
            options.units,
            options.package.name,
            digest,
            loads,
            predictions,
            options.thermal,
            source,
        )
        path = options.out / f"{options.device}-{options.package.stem}-{options.units}.json".replace(" ", "_")
        write_record(record, path)
    except MobiVidError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
