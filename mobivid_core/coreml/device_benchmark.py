r"""Command: time verified packages on a connected iPhone through coremltools' remote benchmarker, or import records.

    mobivid export --config mobile-block --out packages/block
    mobivid device \
        --device "iPhone 16 Pro Max" --bundle packages/block --team ABCDE12345
    mobivid device --import theirs.json --bundle packages/block

Paper: the speed on an iPhone 16 Pro Max. Needs macOS 14.4, Xcode, a signing team and an unlocked iPhone in Developer
Mode; what is missing is said. Each remote call waits ten seconds at most, so a block, the decoder and the text encoder
are timed one by one and composed. The remote part follows coremltools 9's code; it has not been run by the project,
which has no such phone.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mobivid_core.command import CommandParser, at_least_one, given_path, run_command
from mobivid_core.coreml.packages import import_coremltools, package_hash
from mobivid_core.errors import ExportError, ParameterError
from mobivid_core.phone.records import (
    COMPUTE_UNITS,
    THERMAL_STATES,
    DeviceRecord,
    compose,
    import_record,
    keep_record,
    verified_packages,
)


def missing_requirements(team: str | None) -> list[str]:
    """What this machine lacks to time a package on a phone, one sentence each; empty if nothing."""
    lacks, version = [], platform.mac_ver()[0]
    if not version or tuple(int(n) for n in version.split(".")[:2]) < (14, 4):
        lacks.append(f"macOS 14.4 or later is needed; this is {version or platform.system()}")
    if shutil.which("xcrun") is None:
        lacks.append("Xcode's command-line tools are needed (`xcode-select --install`, then Xcode 15 or later)")
    elif subprocess.run(["xcrun", "--find", "devicectl"], capture_output=True, check=False).returncode:
        lacks.append("`devicectl` is not in this Xcode; install Xcode 15 or later")
    if not team:
        lacks.append("a signing team is needed: pass --team with the ten-character id of your Apple developer team")
    return lacks


async def _time_bundle(options: argparse.Namespace, verified: Mapping[str, dict]) -> list[DeviceRecord]:
    """Time every package of the bundle on the first connected phone, one after the other; all must be verified ones."""
    ct = import_coremltools()
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
    from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceType

    digests = {package: package_hash(package) for package in sorted(options.bundle.glob("*.mlpackage"))}
    for package, digest in digests.items():
        if digest not in verified:
            raise ExportError(
                f"{package} has the hash {digest[:12]}, which is none of the packages that passed verification: it was "
                "changed since, or failed. Convert it again with `mobivid export`"
            )
    phones = Device.get_connected_devices(DeviceType.IPHONE)
    if not phones:
        raise ExportError("no iPhone is connected; connect one by cable, unlock it and switch Developer Mode on")
    phone = await phones[0].prepare_for_model_debugging(AppSigningCredentials(development_team=options.team))
    records = []
    for package, digest in digests.items():
        model = ct.models.MLModel(str(package), compute_units=ct.ComputeUnit[options.units])
        benchmarker = MLModelBenchmarker(model, phone)
        loads = await benchmarker.benchmark_load(iterations=3)
        predictions = await benchmarker.benchmark_predict(iterations=options.iterations, warmup=True)
        record = DeviceRecord(
            options.device, f"iOS {phone.os_version}", options.units, package.name, digest, list(loads.samples),
            list(predictions.samples), options.thermal, "coremltools MLModelBenchmarker over devicectl",
        )  # fmt: skip
        print(keep_record(record, options.out))
        records.append(record)
    return records


def _run(options: argparse.Namespace) -> None:
    if not options.records and (lacks := missing_requirements(options.team)):
        raise ExportError(f"cannot time on a phone from here: {'; '.join(lacks)}")
    verified = verified_packages(options.bundle)
    if options.records:
        records = [import_record(path, verified) for path in options.records]  # all are right, or none is kept
        for record in records:
            print(keep_record(record, options.out))
    else:
        records = asyncio.run(_time_bundle(options, verified))
    for record in records:
        row = record.as_row()
        print(f"{row['device']}, {row['units']}: {row['package']} {row['predict ms']:.2f} ms (median)")
    try:
        composed = compose(records, verified)
        print(f"a clip: {composed['clip']:.2f} s, {composed['frames/s']:.1f} frames/s (composed)")
    except ParameterError as error:
        print(f"not composed to a clip: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if records were written or imported, 2 if something is missing."""
    parser = CommandParser("device", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--device", help="time on the connected iPhone; its product name goes into the records")
    what.add_argument(
        "--import", dest="records", type=given_path, nargs="+", help="records of others to check and keep"
    )
    parser.add_argument(
        "--bundle", type=given_path, default=Path("packages/block"), help="folder that mobivid export wrote"
    )
    parser.add_argument("--team", help="Apple developer team id, for signing coremltools' model runner")
    parser.add_argument("--units", choices=COMPUTE_UNITS, default="CPU_AND_NE", help="default: CPU_AND_NE")
    parser.add_argument("--iterations", type=at_least_one, default=10, help="timed after one warm-up (default: 10)")
    parser.add_argument("--thermal", choices=THERMAL_STATES, default="unknown", help="the phone's thermal state")
    parser.add_out("folder of the records (default: measurements)", Path("measurements"))
    return run_command(_run, parser, arguments)
