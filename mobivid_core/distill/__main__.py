"""Longer distillation from the command line: `python -m mobivid_core.distill --profile laptop --steps 4000`.

Made for the shipped student. Stop it whenever you like: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch

from mobivid_core import artifacts
from mobivid_core.distill.recipe import Recipe, distill
from mobivid_core.distill.student import save_student
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import PROFILES, get_profile
from mobivid_core.training.latents import latent_dataset


def main(arguments: list[str] | None = None) -> None:
    """Parse, distil, publish the run's "student" artefact."""
    parser = argparse.ArgumentParser(prog="python -m mobivid_core.distill", description=__doc__)
    parser.add_argument("--profile", default="laptop", choices=sorted(PROFILES), help="sizes and budgets")
    parser.add_argument("--steps", type=int, help="updates of both stages together (default: the profile's)")
    parser.add_argument("--clips", type=int, help="teacher trajectories (default: of the profile)")
    parser.add_argument("--batch", type=int, help="clips of one update (default: the profile's batch)")
    parser.add_argument("--seed", type=int, default=0, help="seed of trajectories and training")
    parser.add_argument("--start", default="pruned", choices=("pruned", "teacher"), help="what becomes the student")
    parser.add_argument("--fp16", action="store_true", help="store the weights in half precision (to ship them)")
    options = parser.parse_args(arguments)

    profile = get_profile(options.profile)
    device = profile.device if profile.device == "cpu" or torch.cuda.is_available() else "cpu"
    found = {stage: artifacts.find(stage, profile.name) for stage in {"vae", "teacher", options.start}}
    for artifact in found.values():
        print(artifacts.describe(artifact))
    vae = artifacts.load_model(MobiVidVAE, found["vae"].path)
    models = {
        stage: artifacts.load_model(MobiVidTransformer3DModel, found[stage].path).to(device)
        for stage in ("teacher", options.start)
    }
    recipe = Recipe.for_profile(
        profile, steps=options.steps, clips=options.clips, batch=options.batch or profile.batch, seed=options.seed
    )
    run = runs_dir(profile.name)
    dataset = latent_dataset(
        vae, split="train", count=profile.train_clips, frames=profile.frames, size=profile.size, cache=run / "latents"
    )
    sizes = (recipe.regression.steps, recipe.adversarial.steps, recipe.clips, recipe.regression.batch, recipe.seed)
    name = "-".join([options.start, *map(str, sizes)])
    result = distill(
        models[options.start], models["teacher"], dataset, recipe, folder=run / "distill" / name, progress=True
    )
    print(result.costs.to_string(index=False))
    with artifacts.publish("student", profile.name) as folder:
        save_student(result.student, folder, asdict(recipe), torch.float16 if options.fp16 else None)
        result.log.to_csv(folder / "log.csv", index=False)
        result.costs.to_csv(folder / "costs.csv", index=False)
    print(artifacts.describe(artifacts.find("student", profile.name)))


if __name__ == "__main__":
    main()
