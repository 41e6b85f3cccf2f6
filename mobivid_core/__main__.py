"""The command line: `mobivid SUBCOMMAND`, or `python -m mobivid_core SUBCOMMAND` where the package is not installed.

A subcommand is one line of `COMMANDS`: its words, the module whose `main` does the work (and words to hand it first),
and what it does. A module is imported only when its subcommand is called, so the help appears at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from mobivid_core import __version__
from mobivid_core.command import MISTAKE, printed, quiet_start

#: Group -> subcommand -> (module below the package and words that its `main` gets first, what it does).
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run the companion": {
        "reproduce": ("lab.reproduce", "run the notebooks; make every table and figure again"),
        "verify": ("lab.verify", "compare that run with the committed numbers, each with its tolerance"),
        "site": ("lab.site", "the committed notebooks as pages to read offline"),
    },
    "Train and compress": {
        "train vae": ("train.publish vae", "the video autoencoder; --data FOLDER takes your own videos"),
        "train judge": ("train.publish judge", "the network that scores the clips"),
        "train teacher": (
            "train.publish teacher", "the diffusion transformer; --data FOLDER takes your own captioned videos",
        ),
        "distill": ("distill.command", "a four-step student from the pruned model; --model: of your own weights"),
    },
    "Deploy": {
        "predict": ("phone.predict", "does a model fit a phone, and how fast would it be"),
        "export": ("coreml.export", "convert to Core ML packages and verify each; --model: of your own weights"),
        "device": ("coreml.device_benchmark", "time packages on a connected iPhone, or import others' records"),
    },
    "Your own weights (LTX-Video; see mobivid_core/ltx/README.md)": {
        "inspect": ("ltx.command inspect", "what a checkpoint is, costs and fits on"),
        "encode": ("ltx.command encode", "videos and captions to shards of latents and text states"),
        "score": ("ltx.command score", "the damage of removing each block, head and neuron"),
        "plan": ("ltx.command plan", "what stays within a budget of parameters, FLOPs, bytes or seconds"),
        "prune": ("ltx.command prune", "write the smaller model with its card"),
        "refit": ("ltx.command refit", "solve for its output projections in closed form"),
        "recover": ("ltx.command recover", "train it to answer as its teacher does"),
    },
    "Data": {
        "data check": ("data.folder", "which videos of a folder would be used or skipped, and why"),
    },
    "Teach": {
        "teaching": ("lab.teaching.editions", "write the exercise notebooks, student or instructor edition"),
        "grade": ("lab.teaching.grade", "run handed-in exercise notebooks and write a table of grades"),
    },
    "Measure this machine": {
        "bench speed": ("train.speed", "which speed-ups this machine has; float32 or bfloat16 for each kind of layer"),
        "bench memory": ("train.scale", "memory that training at the paper's size needs"),
        "bench chain": ("lab.chain_cost", "record what the whole chain of notebooks took here"),
    },
    "Long studies (hours; the notebooks show their records)": {
        "study libraries": ("studies.library_benchmark", "our pruning against torch-pruning, modelopt and FastNAS"),
        "study losses": ("studies.loss_record losses", "distillation losses at equal compute"),
        "study adversarial": ("studies.adversarial_study", "the adversarial term from a finished student on"),
        "study compute": ("studies.loss_record compute", "quality against distillation compute"),
        "study heads": ("studies.discriminator_study heads", "what the discriminator reads"),
        "study share": ("studies.discriminator_study share", "the share of synthetic clips in its real batch"),
        "study speed": ("studies.speed_record", "teacher and students timed once more: speed-ups over runs"),
        "study coverage": ("studies.coverage", "how often each kind of interval holds a known truth"),
        "study rehearsal": ("studies.rehearsal", "the chain for your own weights, on random ones of LTX-Video's size"),
        "study stacking": ("studies.stacking", "pruning and distillation alone and together"),
    },
    "Maintain": {
        "gpu": ("lab.gpu.command", "train everything on a GPU in minutes: pack, run, stage"),
        "readme": ("lab.readme", "write the README's generated tables again"),
    },
}
_TARGETS = {words: target for group in COMMANDS.values() for words, (target, _) in group.items()}
#: Subcommands that do the same for a checkpoint of your own where `--model` names one.
WITH_MODEL = {"distill": "ltx.command distill", "export": "ltx.command export"}


def page(first: str = "") -> str:
    """The help page: all subcommands, or those that begin with the word `first`, one line each."""
    lines = [
        f"usage: mobivid {first or 'SUBCOMMAND'} ...",
        "",
        f"MobiVid {__version__}: a companion to arXiv 2507.13343.",
    ]
    for group, commands in COMMANDS.items():
        shown = {words: text for words, (_, text) in commands.items() if first in ("", words.split()[0])}
        lines += ["", group, *(f"  {words:16s} {text}" for words, text in shown.items())] * bool(shown)
    lines += ["", "Sizes: --profile smoke | laptop | scratch | gpu | paper. Results: --out. Random numbers: --seed."]
    return "\n".join([*lines, "`mobivid SUBCOMMAND --help` lists a subcommand's options."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status; 0 after a help page, 2 after a subcommand that does not exist."""
    quiet_start()
    words = list(sys.argv[1:] if arguments is None else arguments)
    for length in (2, 1):
        if target := _TARGETS.get(" ".join(words[:length])):
            if words[0] in WITH_MODEL and any(word.split("=")[0] == "--model" for word in words[1:]):
                target = WITH_MODEL[words[0]]
            module, *given = target.split()
            return importlib.import_module(f"mobivid_core.{module}").main([*given, *words[length:]])
    groups = {name.split()[0] for name in _TARGETS}
    first = words[0] if words and words[0] in groups else ""
    if not words[bool(first) :] or words[bool(first)] in ("-h", "--help"):
        return printed(page(first))
    if words[0] == "--version":
        return printed(__version__)
    asked = " ".join(words[: 2 if first else 1])
    close = difflib.get_close_matches(asked, _TARGETS, 1)
    meant = f"did you mean `mobivid {close[0]}`?" if close else "mobivid --help lists them all"
    print(f"error: no subcommand {asked!r}; {meant}", file=sys.stderr)
    return MISTAKE


if __name__ == "__main__":
    sys.exit(main())
