"""The chain on a checkpoint of your own, one subcommand a step; `mobivid_core/ltx/README.md` explains them."""

from __future__ import annotations

from collections.abc import Sequence

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
_GIVEN = {"type": given_path, "required": True}
#: What argparse is told of each option.
OPTIONS: dict[str, dict] = {
    "model": _GIVEN | {"help": "a diffusers pipeline folder, its transformer/, or ours"},
    "student": _GIVEN | {"help": "from `mobivid prune`, or a later step"},
    "data": _GIVEN | {"help": "shards from `mobivid encode`"},
    "scores": _GIVEN | {"help": "from `mobivid score`"},
    "plan": _GIVEN | {"help": "from `mobivid plan`"},
    "out": {"type": out_folder, "required": True},
    "pipeline": {"type": given_path, "help": "diffusers pipeline folder: its VAE and text encoder"},
    "videos": {"type": given_path, "help": "captions.csv beside videos, or webdataset shards of them"},
    "latents": {"type": given_path, "help": "instead of both: safetensors with latents, text and mask"},
    "frames": {"type": at_least_one, "default": 49, "help": "frames of the clip (1 + a multiple of 8)"},
    "height": {"type": at_least_one, "default": 384, "help": "its height in pixels"},
    "width": {"type": at_least_one, "default": 512, "help": "its width in pixels"},
    "text-tokens": {"type": at_least_one, "default": 128, "help": "tokens of a caption"},
    "per-file": {"type": at_least_one, "default": 8, "help": "clips of one video at most"},
    "per-shard": {"type": at_least_one, "default": 16, "help": "videos of one shard"},
    "fps": {"type": above_zero, "default": 24.0, "help": "frames a second of --latents"},
    "dtype": {"choices": TYPES, "help": "of the frozen model; default: its file's, or float32 if faster"},
    "device": {"type": device_name, "default": "", "help": "default: the accelerator, else the processor"},
    "stream": {"action": "store_true", "help": "read blocks from disk as they are used: for small GPUs"},
    "seed": {"type": at_least_zero, "default": 0},
    "samples": {"type": at_least_one, "default": 16, "help": "clips, each at one noise level"},
    "probes": {"type": at_least_one, "default": 2, "help": "random directions a sample"},
    "chip": {"default": "A18 Pro", "help": "whose Neural Engine predicts the seconds"},
    "levels": {"nargs": "+", "choices": LEVELS, "default": list(LEVELS)},
    "multiple": {"type": at_least_one, "default": 64, "help": "FFN widths are rounded to it"},
    "ridge": {"type": not_negative, "default": 1e-2, "help": "pull towards the pruned weights"},
    "layers": {"nargs": "+", "help": 'solve for these alone, e.g. "blocks.0.ffn"; default: all'},
    "steps": {"type": at_least_one, "required": True, "help": "optimiser steps"},
    "batch": {"type": at_least_one, "default": 8, "help": "clips a step, over all processes"},
    "rate": {"type": above_zero, "default": 1e-4, "help": "peak learning rate"},
    "accumulate": {"type": at_least_one, "default": 1, "help": "micro-batches, for less memory"},
    "bf16": {"action": "store_true", "help": "train under bfloat16 autocast"},
    "shard": {"action": "store_true", "help": "shard over all processes (FSDP2; accelerate launch)"},
    "watch": {"type": at_least_zero, "default": 1, "help": "rows of the log between alarms; 0: none"},
    "data-weight": {"type": not_negative, "default": 0.0, "help": "weight of the clips' own velocities"},
    "captions": {"type": at_least_one, "default": 1000, "help": "trajectories of the teacher"},
    "teacher-steps": {"type": at_least_one, "default": 40},
    "guidance": {"type": not_negative, "default": 3.0},
    "adversarial": {"type": at_least_zero, "default": 0, "help": "steps against a discriminator afterwards; 0: none"},
    "warmup": {"type": at_least_zero, "help": "its updates alone before; default: a quarter of them, 2 to 200"},
    "block": {"type": at_least_zero, "help": "convert and verify this block alone"},
}
_CLIP, _COMPUTING = "frames height width text-tokens", "dtype device stream seed"
_STUDENT = f"model student data out {_COMPUTING}"
_TRAINING = f"{_STUDENT} steps batch rate accumulate bf16 shard watch"
_NEW_STUDENT = {"model": {"help": "the unpruned model, the teacher"}, "out": {"help": "folder of the new student"}}
#: Step -> (what does its work, names of its options, what differs in these from `OPTIONS`).
STEPS = {
    "inspect": (steps.inspect_step, f"model {_CLIP}", {}),
    "encode": (
        steps.encode_step,
        f"pipeline videos latents out {_CLIP} per-file per-shard fps dtype device",
        {"out": {"help": "folder of the shards"}, "dtype": {"default": "bfloat16", "help": None}},
    ),
    "score": (steps.score_step, f"model data samples probes {_COMPUTING} out", {"out": {"help": "folder of scores"}}),
    "plan": (
        steps.plan_step,
        "model scores chip levels multiple out",
        {"out": {"type": out_file, "help": "plan to write (JSON)"}},
    ),
    "prune": (steps.prune_step, f"model plan out {_CLIP}", {"out": {"help": "folder of the student"}}),
    "refit": (steps.refit_step, f"{_STUDENT} samples ridge layers", {**_NEW_STUDENT, "samples": {"default": 24}}),
    "recover": (steps.recover_step, f"{_TRAINING} data-weight", _NEW_STUDENT),
    "distill": (steps.distill_step, f"{_TRAINING} captions teacher-steps guidance adversarial warmup", _NEW_STUDENT),
    "export": (steps.export_step, f"model out block {_CLIP}", {"out": {"help": "folder of the packages"}}),
}


def parser_of(step: str) -> CommandParser:
    """The options of a step."""
    work, names, other = STEPS[step]
    parser = CommandParser(step, work.__doc__)
    for name in names.split():
        parser.add_argument(f"--{name}", **OPTIONS[name] | other.get(name, {}))
    if step == "plan":
        budget = parser.add_mutually_exclusive_group(required=True)
        for unit, what in (("params", "parameters"), ("flops", "FLOPs a pass"), ("bytes", "16-bit weights")):
            text = f"budget in {what}; up to 1: a share of the model's"
            budget.add_argument(f"--{unit}", type=above_zero, help=text)
        text = "budget in a phone's predicted seconds a pass; or a share"
        budget.add_argument("--seconds", type=above_zero, help=text)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Command line: the first word is the step; returns the exit status."""
    step, *words = arguments
    return run_command(STEPS[step][0], parser_of(step), words)
