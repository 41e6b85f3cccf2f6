"""Recorded trials of the adversarial stage: `python -m mobivid_core.distill.study heads --profile laptop`.

Paper: its discriminator ablation (Table 5; R1.4) and the real : synthetic share (R4.4). Each trial takes the same
student, trajectories, seeds and number of updates and changes one thing. A trial takes minutes, so the notebook shows
the record in `data/benchmarks/`; interrupted, the command goes on with the trials that are missing.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from mobivid_core import artifacts
from mobivid_core.compress.library_record import record_folder, teacher_hash
from mobivid_core.distill.adversarial import Contest, RealPool
from mobivid_core.distill.comparison import frechet_ratio, mean_ratio
from mobivid_core.distill.discriminator import TeacherDiscriminator, default_depths
from mobivid_core.distill.recipe import Recipe, teacher_trajectories
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.solvers import Sampler
from mobivid_core.distill.trainer import Distiller
from mobivid_core.evaluate.generation import Evaluator
from mobivid_core.evaluate.judge import Judge
from mobivid_core.files import write_bytes
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import PROFILES, Profile, get_profile
from mobivid_core.report.records import read_record, whose_teacher, write_record
from mobivid_core.training.latents import latent_dataset

#: Trial -> (settings that change, how its discriminator is built, synthetic share).
Trial = tuple[dict, Callable[[nn.Module], TeacherDiscriminator], float]
#: Student's four unguided steps.
_FOUR = Sampler("euler", 4)


def _untrained(teacher: nn.Module) -> nn.Module:
    """The teacher's architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fresh = MobiVidTransformer3DModel.from_sizes(teacher.sizes)
    return fresh.to(next(teacher.parameters()).device).eval().requires_grad_(False)


def trials(name: str, blocks: int) -> dict[str, Trial]:
    """The trials of a study: "heads" or "share".

    Args:
        name: The study.
        blocks: Blocks of the teacher.
    """
    depths, last = default_depths(blocks), blocks - 1
    if name == "share":
        return {f"{share:.0%} synthetic": ({}, TeacherDiscriminator, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    return {
        f"teacher features, blocks {', '.join(map(str, depths))}": ({}, TeacherDiscriminator, 0.5),
        "no adversarial term": ({"adversarial_weight": 0.0}, TeacherDiscriminator, 0.5),
        "network with random weights": ({}, lambda t: TeacherDiscriminator(_untrained(t)), 0.5),
        "one early block": ({}, lambda t: TeacherDiscriminator(t, (depths[0],)), 0.5),
        "one late block": ({}, lambda t: TeacherDiscriminator(t, (last,)), 0.5),
        "spatial heads": ({}, lambda t: TeacherDiscriminator(t, kind="spatial"), 0.5),
        "low noise levels only": ({"renoise_high": 0.4}, TeacherDiscriminator, 0.5),
        "relativistic loss": ({"loss": "relativistic"}, TeacherDiscriminator, 0.5),
    }


def run(name: str, profile: Profile, updates: int, clips: int, seeds: int) -> pd.DataFrame:
    """All trials of a study; finished ones are kept in the run's folder."""
    vae = artifacts.load_model(MobiVidVAE, artifacts.find("vae", profile.name).path)
    judge = artifacts.load_model(Judge, artifacts.find("judge", profile.name).path)
    teacher = artifacts.load_model(MobiVidTransformer3DModel, artifacts.find("teacher", profile.name).path)
    student = artifacts.load_model(MobiVidTransformer3DModel, artifacts.find("student", profile.name).path)
    teacher.requires_grad_(False)
    sizes, run_folder = {"frames": profile.frames, "size": profile.size}, runs_dir(profile.name)
    count = 8 * profile.batch
    data = latent_dataset(vae, split="train", count=count, cache=run_folder / "latents", **sizes)
    recipe = replace(Recipe.for_profile(profile, clips=count), teacher_steps=8)
    trajectories = teacher_trajectories(teacher, data, recipe, cache=run_folder / "distill" / "trajectories")
    evaluator = Evaluator.prepare(vae, judge, profile, n=clips, progress=False)
    before = evaluator.evaluate_sampler(_FOUR.on(student), n=clips, keep=0, progress=False)
    stamp = artifacts.read_stamp(artifacts.find("student", profile.name).path)["files"][artifacts.WEIGHTS][:12]
    folder = run_folder / "distill" / "study" / f"{stamp}-{updates}-{clips}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    todo = [(t, seed) for t in trials(name, teacher.sizes.blocks).items() for seed in range(seeds)]
    for (title, (changes, build, share)), seed in tqdm(todo, desc=name, ascii=True):
        kept = folder / f"{name}-{len(rows)}.json"
        if not kept.is_file():
            base = replace(recipe.adversarial, steps=updates, discriminator_warmup=max(2, updates // 3), seed=seed)
            settings = replace(base, **changes)
            after, gap = _trial(student, teacher, data, trajectories, settings, build, share, evaluator, clips)
            over = frechet_ratio(after.measures, before.measures, evaluator.reference, seed=seed)
            right = mean_ratio(
                after.measures, before.measures, after.labels, evaluator.reference, "all_together", seed=seed
            )
            row = {"trial": title, "seed": seed, "all together": float(after.scores["all_together"])}
            row |= dict(zip(("Frechet / start", "low", "high"), over, strict=True))
            row |= {"accuracy / start": right[0], "D(real) - D(student)": gap}
            write_bytes(kept, json.dumps(row).encode())
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return pd.DataFrame(rows)


def _trial(student, teacher, data, trajectories, settings: DistillSettings, build, share, evaluator, clips):  # noqa: ANN001, ANN202
    """(evaluation of the student after the trial, mean gap of the logits over its last updates)."""
    start = copy.deepcopy(student).requires_grad_(True)
    contest = None
    if settings.adversarial_weight > 0:
        torch.manual_seed(settings.seed)
        contest = Contest(build(teacher), RealPool(data, trajectories, share), settings)
    distiller = Distiller(start, trajectories, settings, contest=contest)
    distiller.run()
    last = pd.DataFrame(distiller.log).tail(10)
    after = evaluator.evaluate_sampler(_FOUR.on(distiller.averaged), n=clips, keep=0, progress=False)
    return after, float((last["real_logit"] - last["fake_logit"]).mean())


def load_study(name: str, teacher: str, folder: Path | None = None) -> tuple[pd.DataFrame, str]:
    """A recorded study and one sentence on where it comes from.

    Args:
        name: "heads" or "share".
        teacher: `teacher_hash` of this run.
        folder: Of the records; None for the project's.

    Raises:
        CheckpointError: There is no such record.
    """
    place = (folder or record_folder()) / f"distill_{name}"
    rows, facts = read_record(place, f"python -m mobivid_core.distill.study {name}")
    return rows, (
        f"Recorded on {facts['date']}: {facts['updates']} updates from the shipped student, {facts['clips']} test "
        f"captions, {facts['seeds']} seed(s), on {whose_teacher(facts, teacher)}."
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line: run what is missing, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("heads", "share"), help="which trials")
    parser.add_argument("--profile", default="laptop", choices=sorted(PROFILES), help="sizes and artefacts")
    parser.add_argument("--updates", type=int, default=16, help="updates of each trial")
    parser.add_argument("--clips", type=int, default=64, help="test captions of each score")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each trial")
    parser.add_argument("--out", type=Path, default=record_folder(), help="where the record goes")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    table = run(options.study, profile, options.updates, options.clips, options.seeds)
    facts = {
        "date": datetime.date.today().isoformat(),
        "teacher": teacher_hash(profile.name),
        "updates": options.updates,
        "clips": options.clips,
        "seeds": options.seeds,
    }
    write_record(options.out / f"distill_{options.study}", table, facts)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
