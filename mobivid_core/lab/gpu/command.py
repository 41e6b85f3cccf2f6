"""Commands of a GPU run: `pack` for a bare machine, `run` the chain in a slice of time, or one `stage`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from mobivid_core.command import CommandParser, above_zero, device_name, run_command
from mobivid_core.errors import ParameterError
from mobivid_core.profiles import add_profile, get_profile

#: Stage -> (share of the time, stages that must be done before, words). Stages without open needs run side by side.
SCHEDULE: dict[str, tuple[float, str, str]] = {
    "judge": (0.0, "", "judge"),
    "codec": (0.22, "", "codec"),
    "latents": (0.0, "codec", "latents"),
    "sharpen": (0.2, "latents", "sharpen"),
    "teacher": (0.27, "latents", "teacher"),
    "guidance": (0.0, "teacher judge", "guidance"),
    "prune": (0.0, "teacher", "prune"),
    "trajectories": (0.0, "guidance", "trajectories"),
    "distilled": (0.11, "trajectories", "regress"),
    "student": (0.13, "trajectories prune", "regress --start pruned --to student-regression"),
    "contest": (0.12, "distilled", "contest"),
    "contest-student": (0.12, "student", "contest --start student-regression --to student-adversarial"),
    "compare": (0.0, "contest contest-student sharpen", "compare"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the verb that was asked for; returns the exit status."""
    parser = CommandParser("gpu", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write site.zip: weights that a bare machine lacks")
    packing.add_out("folder to write (default: runs/gpu)", Path("runs/gpu"))
    running = verbs.add_parser("run", help="all stages, side by side where they can")
    stage = verbs.add_parser("stage", help="one stage")
    for verb in (running, stage):
        add_profile(verb, "gpu")
        verb.add_out("folder of the run; it goes on there (default: runs/gpu)", Path("runs/gpu"))
        verb.add_argument("--device", type=device_name, default="", help="default: the GPU, else the processor")
    running.add_argument("--minutes", type=above_zero, default=12.0, help="time for everything")
    running.add_argument("--only", nargs="*", default=[], choices=SCHEDULE, help="these; what they need must be there")
    stage.add_argument("stage")
    stage.add_argument("--seconds", type=above_zero, default=60.0)
    for folder in ("start", "to"):  # one that is left out keeps the stage's own default
        stage.add_argument(f"--{folder}", default=argparse.SUPPRESS)
    for verb, work in ((packing, _pack), (running, _run), (stage, _stage)):
        verb.set_defaults(work=work)
    return run_command(lambda options: options.work(options), parser, arguments)


def _pack(options: argparse.Namespace) -> None:
    from mobivid_core.lab.gpu.pack import pack

    target = pack(options.out)
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")


def _stage(options: argparse.Namespace) -> None:
    import torch

    from mobivid_core.lab.gpu.stages import Place
    from mobivid_core.lab.gpu.students import STAGES

    if options.stage not in STAGES:
        raise ParameterError(f"unknown stage {options.stage!r}; the stages are {', '.join(STAGES)}")
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = {} if device.type != "cpu" else {"clips": 48, "trajectories": 16, "batch": 4}
    place = Place(options.out, get_profile(options.profile), device, **sizes)
    own = {name: value for name, value in vars(options).items() if name in ("start", "to")}
    began = time.perf_counter()
    STAGES[options.stage](place, options.seconds, **own)
    print(f"{options.stage}: {time.perf_counter() - began:.1f} s", flush=True)


def _run(options: argparse.Namespace) -> int:
    """Start each stage when what it needs is done; finished ones of an earlier call are not run again."""
    end = time.monotonic() + 60 * options.minutes
    marks = options.out / "done"
    marks.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in SCHEDULE if not options.only or name in options.only]
    running: dict[str, subprocess.Popen] = {}
    failed: set[str] = set()
    while True:
        for name, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            (marks / name).touch() if process.returncode == 0 else failed.add(name)
            spent, outcome = 60 * options.minutes - (end - time.monotonic()), "FAILED" if process.returncode else "done"
            print(f"[{spent:5.0f} s] {name} {outcome}", flush=True)
        left = [n for n in wanted if not (marks / n).exists() and n not in running and n not in failed]
        for name in [n for n in left if all((marks / need).exists() for need in SCHEDULE[n][1].split())]:
            share, _, words = SCHEDULE[name]
            log = (options.out / f"{name}.txt").open("w")
            command = [sys.executable, "-m", "mobivid_core", "gpu", "stage", *words.split()]
            command += ["--profile", options.profile, "--out", str(options.out), "--device", options.device]
            command += ["--seconds", f"{share * 60 * options.minutes:.0f}"]
            running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        if not running:
            break
        if time.monotonic() > end:
            for process in running.values():
                process.terminate()
            print(f"time is up; unfinished: {', '.join(running)}")
            return 1
        time.sleep(0.2)
    for name in sorted(failed):
        print(f"--- {name}\n" + (options.out / f"{name}.txt").read_text()[-2500:])
    return 1 if failed else 0
