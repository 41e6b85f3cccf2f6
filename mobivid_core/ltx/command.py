"""The chain on a checkpoint of your own, one subcommand a step.

    mobivid inspect --model LTX-Video
    mobivid encode  --pipeline LTX-Video --videos FOLDER --out data
    mobivid score   --model LTX-Video --data data --out scores
    mobivid plan    --model LTX-Video --scores scores --params 0.96e9 --out plan.json
    mobivid prune   --model LTX-Video --plan plan.json --out student
    mobivid refit   --model LTX-Video --student student --data data --out refitted
    mobivid recover --model LTX-Video --student refitted --data data --steps 20000 --out recovered
    mobivid distill --model LTX-Video --student recovered --data data --steps 10000 --out distilled
    mobivid export  --model distilled --out packages

Every step resumes where it was interrupted. `mobivid_core/ltx/README.md` explains them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from mobivid_core.command import (
    CommandParser,
    above_zero,
    at_least_one,
    at_least_zero,
    device_name,
    given_path,
    not_negative,
    out_file,
    out_folder,
    run_command,
)
from mobivid_core.ltx import steps
from mobivid_core.prune.plan import LEVELS

TYPES = ("float32", "bfloat16", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: the first word is the step; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in STEPS:
        print(f"error: expected one of {', '.join(STEPS)}, got {words[0] if words else 'nothing'!r}", file=sys.stderr)
        return 2
    options, work = STEPS[words[0]]
    parser = CommandParser("", work.__doc__, prog=f"mobivid {words[0]}")
    options(parser)
    return run_command(work, parser, words[1:])


def _clip_options(parser: CommandParser) -> None:
    parser.add_argument("--frames", type=at_least_one, default=49, help="frames of the clip (1 + a multiple of 8)")
    parser.add_argument("--height", type=at_least_one, default=384, help="its height in pixels")
    parser.add_argument("--width", type=at_least_one, default=512, help="its width in pixels")
    parser.add_argument("--text-tokens", type=at_least_one, default=128, help="tokens of a caption")


def _model_option(parser: CommandParser, text: str = "a diffusers pipeline folder, its transformer/, or ours") -> None:
    parser.add_argument("--model", type=given_path, required=True, help=text)


def _computing_options(parser: CommandParser) -> None:
    parser.add_argument("--dtype", choices=TYPES, help="of the frozen model; default: its file's, or float32 if faster")
    parser.add_argument("--device", type=device_name, default="", help="default: the accelerator, else the processor")
    parser.add_argument("--stream", action="store_true", help="read blocks from disk as they are used: for small GPUs")
    parser.add_argument("--seed", type=at_least_zero, default=0)


def _inspect_options(parser: CommandParser) -> None:
    _model_option(parser)
    _clip_options(parser)


def _encode_options(parser: CommandParser) -> None:
    parser.add_argument("--pipeline", type=given_path, help="diffusers pipeline folder: its VAE and text encoder")
    parser.add_argument("--videos", type=given_path, help="captions.csv beside videos, or webdataset shards of them")
    parser.add_argument("--latents", type=given_path, help="instead of both: safetensors with latents, text and mask")
    parser.add_argument("--out", type=out_folder, required=True, help="folder of the shards")
    _clip_options(parser)
    parser.add_argument("--per-file", type=at_least_one, default=8, help="clips of one video at most")
    parser.add_argument("--per-shard", type=at_least_one, default=16, help="videos of one shard")
    parser.add_argument("--fps", type=above_zero, default=24.0, help="frames a second of --latents")
    parser.add_argument("--dtype", choices=TYPES, default="bfloat16")
    parser.add_argument("--device", type=device_name, default="")


def _score_options(parser: CommandParser) -> None:
    _model_option(parser)
    parser.add_argument("--data", type=given_path, required=True, help="shards from `mobivid encode`")
    parser.add_argument("--out", type=out_folder, required=True, help="folder of the scores")
    parser.add_argument("--samples", type=at_least_one, default=16)
    parser.add_argument("--probes", type=at_least_one, default=2, help="random directions a sample")
    _computing_options(parser)


def _plan_options(parser: CommandParser) -> None:
    _model_option(parser)
    parser.add_argument("--scores", type=given_path, required=True, help="from `mobivid score`")
    parser.add_argument("--out", type=out_file, required=True, help="plan to write (JSON)")
    budget = parser.add_mutually_exclusive_group(required=True)
    for unit, what in (("params", "parameters"), ("flops", "FLOPs a pass"), ("bytes", "16-bit weights")):
        budget.add_argument(f"--{unit}", type=above_zero, help=f"budget in {what}; up to 1: a share of the model's")
    budget.add_argument("--seconds", type=above_zero, help="budget in a phone's predicted seconds a pass; or a share")
    parser.add_argument("--chip", default="A18 Pro", help="whose Neural Engine predicts the seconds")
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--multiple", type=at_least_one, default=64, help="FFN widths are rounded to it")


def _prune_options(parser: CommandParser) -> None:
    _model_option(parser)
    parser.add_argument("--plan", type=given_path, required=True, help="from `mobivid plan`")
    parser.add_argument("--out", type=out_folder, required=True, help="folder of the student")
    _clip_options(parser)


def _student_options(parser: CommandParser) -> None:
    _model_option(parser, "the unpruned model, the teacher")
    parser.add_argument("--student", type=given_path, required=True, help="from `mobivid prune`, or a later step")
    parser.add_argument("--data", type=given_path, required=True, help="shards from `mobivid encode`")
    parser.add_argument("--out", type=out_folder, required=True, help="folder of the new student")
    _computing_options(parser)


def _refit_options(parser: CommandParser) -> None:
    _student_options(parser)
    parser.add_argument("--samples", type=at_least_one, default=24, help="clips at as many noise levels")
    parser.add_argument("--ridge", type=not_negative, default=1e-2, help="pull towards the pruned weights")
    parser.add_argument("--layers", nargs="+", help='solve for these alone, e.g. "blocks.0.ffn"; default: all')


def _training_options(parser: CommandParser) -> None:
    _student_options(parser)
    parser.add_argument("--steps", type=at_least_one, required=True, help="optimiser steps")
    parser.add_argument("--batch", type=at_least_one, default=8, help="clips a step, over all processes")
    parser.add_argument("--rate", type=above_zero, default=1e-4, help="peak learning rate")
    parser.add_argument("--accumulate", type=at_least_one, default=1, help="micro-batches, for less memory")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    parser.add_argument("--shard", action="store_true", help="shard over all processes (FSDP2; accelerate launch)")
    parser.add_argument("--watch", type=at_least_zero, default=1, help="rows of the log between alarms; 0: none")


def _recover_options(parser: CommandParser) -> None:
    _training_options(parser)
    parser.add_argument("--data-weight", type=not_negative, default=0.0, help="weight of the clips' own velocities")


def _distill_options(parser: CommandParser) -> None:
    _training_options(parser)
    parser.add_argument("--captions", type=at_least_one, default=1000, help="trajectories of the teacher")
    parser.add_argument("--teacher-steps", type=at_least_one, default=40)
    parser.add_argument("--guidance", type=not_negative, default=3.0)
    text = "steps against a discriminator after --steps; 0: none"
    parser.add_argument("--adversarial", type=at_least_zero, default=0, help=text)
    text = "updates of the discriminator alone; default: a quarter of them, 2 to 200"
    parser.add_argument("--warmup", type=at_least_zero, help=text)


def _export_options(parser: CommandParser) -> None:
    _model_option(parser)
    parser.add_argument("--out", type=out_folder, required=True, help="folder of the packages")
    parser.add_argument("--block", type=at_least_zero, help="convert and verify this block alone")
    _clip_options(parser)


#: Step -> (what adds its options, what does its work).
STEPS: dict[str, tuple[Callable[[CommandParser], None], Callable[[argparse.Namespace], int | None]]] = {
    "inspect": (_inspect_options, steps.inspect_step),
    "encode": (_encode_options, steps.encode_step),
    "score": (_score_options, steps.score_step),
    "plan": (_plan_options, steps.plan_step),
    "prune": (_prune_options, steps.prune_step),
    "refit": (_refit_options, steps.refit_step),
    "recover": (_recover_options, steps.recover_step),
    "distill": (_distill_options, steps.distill_step),
    "export": (_export_options, steps.export_step),
}
