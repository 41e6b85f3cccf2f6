"""Longer distillation from the command line: `mobivid distill --profile laptop --fast`.

Made for the shipped students (`--ship` puts one in place). Stop it whenever you like: the same command goes on where it
was. Trajectories and states are kept under the run's folder.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch

from mobivid_core import artifacts
from mobivid_core.command import CommandParser, above_zero, at_least_one, at_least_zero, not_negative, run_command
from mobivid_core.data.latents import latent_dataset
from mobivid_core.distill.own_states import OwnRounds
from mobivid_core.distill.recipe import Recipe, distill
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.student import CARD, STUDENTS, save_student
from mobivid_core.files import read_json
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile, add_profile, get_profile
from mobivid_core.train.precision import whole_training
from mobivid_core.train.speed import SpeedPlan

#: Defaults: a training of hours. What the shipped students had is in their `distilled.json`.
CLIPS, TEACHER_STEPS, BATCH = 15_360, 8, 64
#: Clips whose captions are used; further trajectories repeat them with other noise and other wordings.
CAPTIONED = 6144
REGRESSION_STEPS, ADVERSARIAL_STEPS = 4000, 200
OWN_CLIPS, OWN_STEPS = 2048, 400


def make_parser() -> CommandParser:
    """Options of the command."""
    parser = CommandParser("distill", __doc__)
    add_profile(parser)
    add = parser.add_argument
    add("--start", default="pruned", help="what becomes the student: pruned, teacher, student, a folder")
    add("--clips", type=at_least_one, default=CLIPS, help="guided trajectories of the teacher")
    add("--teacher-steps", type=at_least_one, default=TEACHER_STEPS, help="of each, a multiple of 4")
    add("--batch", type=at_least_one, default=BATCH, help="clips of an update; adversarial: a quarter")
    add("--regression-steps", type=at_least_zero, default=REGRESSION_STEPS, help="regressing updates; 0: none")
    add("--own-rounds", type=at_least_zero, default=0, help="rounds on the student's own states; 0: none")
    add("--own-clips", type=at_least_one, default=OWN_CLIPS, help="clips of each such round")
    add("--own-forced", type=at_least_zero, default=0, help="the teacher's added to each round")
    add("--own-first", type=at_least_zero, default=0, help="trajectory that the first round begins with")
    add("--own-steps", type=at_least_one, default=OWN_STEPS, help="updates of each such round")
    add("--own-rate", type=above_zero, default=4e-4, help="AdamW's peak rate in them")
    add("--own-muon", type=not_negative, default=2e-3, help="Muon's peak rate in them")
    add("--adversarial-steps", type=at_least_zero, default=ADVERSARIAL_STEPS, help="updates with both losses; 0: none")
    add("--rate", type=above_zero, default=1e-3, help="AdamW's peak rate in the regression")
    add("--muon", type=not_negative, default=2e-3, help="Muon's peak rate there; 0 leaves all to AdamW")
    parser.add_seed("trajectories and training depend on it")
    add("--fast", action="store_true", help="every speed-up that this machine has")
    add("--name", default="student", choices=STUDENTS, help="the artefact that this makes")
    add("--ship", action="store_true", help="write half-precision weights to data/checkpoints/NAME")
    return parser


def recipe_of(o: argparse.Namespace, profile: Profile) -> Recipe:
    """The recipe that the options ask for."""
    base, own = Recipe.for_profile(profile, clips=o.clips, batch=o.batch, seed=o.seed), None

    def regressing(steps: int, rate: float, muon: float, warmup: int, ema: float, snapshots: int) -> DistillSettings:
        how = {"rate_warmup": warmup, "ema": ema, "snapshot_every": max(10, steps // snapshots)}
        return replace(base.regression, steps=steps, rate=rate, muon=muon, **how)

    steps = o.regression_steps
    ema = 0.998 if steps >= 1000 else 0.98
    first = regressing(steps, o.rate, o.muon, min(100, steps // 10 + 1), ema, 40) if steps else None
    if o.own_rounds:
        settings = regressing(o.own_steps, o.own_rate, o.own_muon, 20, 0.99, 10)
        own = OwnRounds(o.own_rounds, o.own_clips, settings, o.own_first, o.own_forced)
    steps = o.adversarial_steps
    how = {"batch": max(o.batch // 4, 1), "discriminator_warmup": max(2, steps // 4)}
    second = replace(base.adversarial, steps=steps, **how) if steps else None
    return replace(base, teacher_steps=o.teacher_steps, regression=first, adversarial=second, own=own)


def main(arguments: list[str] | None = None) -> int:
    """Command line. Returns the exit status: 2 where something that was asked for cannot be had."""
    goes_on = "interrupted: what is done is kept; the same command goes on from there"
    return run_command(_run, make_parser(), arguments, interrupted=goes_on)


def _run(options: argparse.Namespace) -> None:
    """Distil, publish the run's artefact (and the shipped one)."""
    profile = get_profile(options.profile)
    recipe, run, plan = recipe_of(options, profile), runs_dir(profile.name), None
    if options.fast:
        plan = SpeedPlan.started()
        print(plan)
    device = profile.device if profile.device == "cpu" or torch.cuda.is_available() else "cpu"

    def place(stage: str) -> Path:
        if stage not in artifacts.STAGES:
            return Path(stage)
        found = artifacts.find(stage, profile.name)
        print(artifacts.describe(found))
        return found.path

    began_with, teacher = place(options.start), place("teacher")
    start, teacher = (artifacts.load_model(MobiVidTransformer3DModel, p).to(device) for p in (began_with, teacher))
    vae = artifacts.load_model(MobiVidVAE, artifacts.find("vae", profile.name).path)
    clips = {"count": min(options.clips, CAPTIONED), "frames": profile.frames, "size": profile.size}
    dataset = latent_dataset(vae, split="train", **clips, cache=run / "latents")
    compiled = bool(plan and plan.compiled)
    with whole_training(device, bool(plan and plan.bf16)):
        result = distill(start, teacher, dataset, recipe, folder=run / "distill", progress=True, compiled=compiled)
    print(result.costs.to_string(index=False))
    recipes, costs = earlier_rounds(began_with)
    costs = pd.concat([costs, result.costs.assign(round=len(recipes) + 1)], ignore_index=True)

    def write(folder: Path, dtype: torch.dtype | None = None) -> None:
        """Weights, how to sample, log, and the recipes and costs of every round so far."""
        save_student(result.student, folder, asdict(recipe), dtype, earlier=recipes)
        result.log.to_csv(folder / "log.csv", index=False)
        costs.to_csv(folder / "costs.csv", index=False)

    with artifacts.publish(options.name, profile.name) as folder:
        write(folder)
    print(artifacts.describe(artifacts.find(options.name, profile.name)))
    if options.ship:
        folder = artifacts.shipped_path(options.name)  # its model card stays
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, torch.float16)
        artifacts.write_stamp(folder, options.name)
        print(f"shipped: {folder} (add a README.md, the model card, and run --ship again)")


def earlier_rounds(folder: Path) -> tuple[list[dict], pd.DataFrame]:
    """Recipes of a student's earlier rounds, and their costs where kept; none for a model that is no student yet."""
    if not (folder / CARD).is_file():
        return [], pd.DataFrame()
    card, file = read_json(folder / CARD), folder / "costs.csv"
    costs = pd.read_csv(file) if file.is_file() else pd.DataFrame()
    return [*card.get("earlier", []), card.get("recipe", {})], costs.assign(round=costs.get("round", 1))
