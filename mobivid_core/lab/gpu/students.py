"""Later stages of a GPU run (guidance, trajectories, pruned model, students, comparison), and the list of all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mobivid_core.artifacts import load_model, save_model
from mobivid_core.data.captions import caption, label_indices
from mobivid_core.data.latents import LatentDataset
from mobivid_core.data.pool import to_bytes
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.distill.own_states import collect_own_states, joined
from mobivid_core.distill.recipe import run_stages
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.student import FOUR_STEPS, save_student
from mobivid_core.distill.trajectory import Trajectories, collect_trajectories, student_sigmas
from mobivid_core.files import write_json
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance
from mobivid_core.lab.gpu.stages import ENDLESS, Place, codec, judge, latents, sharpen, teacher
from mobivid_core.measure.frechet import frechet_distance
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.measure.measures import ClipMeasures, measure
from mobivid_core.measure.reconstruction import reconstruct
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.text import encode_captions

#: Guidance settings to choose from; each guides every step.
TRIED_GUIDANCE = (Guidance(2.0), *(Guidance(scale, rescale=rescale) for scale in (3.0, 4.5) for rescale in (0.0, 0.7)))


def guidance(place: Place, _seconds: float) -> None:
    """Choose the guidance on validation captions: nearest to real clips among those that are as accurate as any."""
    tried = {g.name: g for g in TRIED_GUIDANCE}
    arms = {name: ("teacher", Sampler("euler", 16, g)) for name, g in tried.items()}
    rows = _compare(place, arms, "vae", "guidance")[1:]
    best = max(row["all"] for row in rows)
    chosen = min((row for row in rows if row["all"] >= best - 0.015), key=lambda row: row["image"])["name"]
    write_json(place.root / "chosen.json", {"guidance": asdict(tried[chosen])})
    print("guidance", chosen, flush=True)


def trajectories(place: Place, _seconds: float) -> None:
    """Guided trajectories of the teacher, kept with the numbers of their captions: the states lie with the clips."""
    data, model = place.dataset(), place.model("teacher").eval().requires_grad_(False)
    chosen = torch.arange(place.trajectories) % len(data)
    wordings = torch.randint(data.caption_of.shape[1], chosen.shape, generator=torch.Generator().manual_seed(1))
    captions = data.caption_of[chosen.to(place.device), wordings.to(place.device)]
    with torch.autocast(place.device.type, torch.bfloat16, enabled=place.fast):
        walked = collect_trajectories(
            model, _condition(data, captions), tuple(data.latents.shape[1:]), steps=place.teacher_steps,
            guidance=_chosen_guidance(place), solver="euler", seed=1, chunk=place.chunk,
        )  # fmt: skip
    kept = {"states": walked.states.float().contiguous(), "captions": captions.cpu()}
    save_file(kept, place.root / "trajectories.safetensors")


def walked(place: Place, data: LatentDataset) -> Trajectories:
    """The trajectories of the stage of that name, on the device."""
    stored = load_file(place.root / "trajectories.safetensors", device=str(place.device))
    condition, sigmas = _condition(data, stored["captions"]), student_sigmas().to(place.device)
    return Trajectories(stored["states"], sigmas, condition, place.teacher_steps, _chosen_guidance(place))


def _condition(data: LatentDataset, captions: Tensor) -> Condition:
    return Condition(data.text[captions].float(), data.mask[captions], data.null_text, data.null_mask)


def _chosen_guidance(place: Place) -> Guidance:
    return Guidance(**json.loads((place.root / "chosen.json").read_text())["guidance"])


def prune(place: Place, _seconds: float) -> None:
    """The paper's cut of the teacher: planned, pruned and refitted, on the processor."""
    from mobivid_core.prune.planner import Targets, plan_for_targets
    from mobivid_core.prune.refit import refit
    from mobivid_core.prune.search import eliminate_blocks, rescore
    from mobivid_core.prune.surgery import prune as cut
    from mobivid_core.sensitivity.calibration import calibration_from
    from mobivid_core.sensitivity.kd import default_features, reference

    model = load_model(MobiVidTransformer3DModel, place.root / "teacher").requires_grad_(False)
    few = replace(place, device=torch.device("cpu")).dataset()
    few = replace(few, latents=few.latents[:1024], caption_of=few.caption_of[:1024])
    calibration = calibration_from(few, samples=1024 if place.fast else 16, seed=0)
    probe = reference(model, calibration.first(128 if place.fast else 8), default_features(model.sizes.blocks))
    targets = Targets.of(place.profile.mobile)
    kept, _ = eliminate_blocks(model, probe, place.profile.mobile.blocks, progress=False)
    plan = plan_for_targets(rescore(model, probe, kept, seed=0), model.sizes, targets, keep_blocks=kept)
    student, _ = refit(cut(model, plan).eval(), model, plan, calibration, progress=False)
    save_model(student, place.root / "pruned")
    plan.save(place.root / "pruned" / "plan.json")
    print(f"pruned: kept {kept}, {plan.parameters:,} parameters", flush=True)


def regress(place: Place, seconds: float, start: str = "teacher", to: str = "distilled-regression") -> None:
    """Regression on the teacher's trajectories, then rounds on the student's own states."""
    data = place.dataset()
    paths = walked(place, data)
    model = place.model("teacher").eval().requires_grad_(False)
    own_rounds, share = (2, 0.55) if place.fast else (1, 0.5)
    base = DistillSettings(
        ENDLESS, batch=512 if place.fast else 4, rate=1e-3, muon=4e-3, rate_warmup=100, ema=0.998,
        snapshot_every=5000 if place.fast else 10, seconds=share * seconds,
    )  # fmt: skip
    (first,) = run_stages(place.model(start), model, data, paths, (base,))
    latest, log = first.averaged, list(first.log)
    for number in range(own_rounds):
        began = time.perf_counter()
        clips = min(len(paths), 8192 if place.fast else 8)
        seen = collect_own_states(latest, model, paths.to("cpu"), clips, first=number * clips, chunk=place.chunk)
        left = (1 - share) * seconds / own_rounds - (time.perf_counter() - began)
        forced = paths.take(torch.arange(2 * clips, device=place.device) % len(paths))
        given = joined([seen.to(place.device), forced])
        later = replace(base, rate=4e-4, muon=2e-3, seconds=max(left, 2.0), seed=number + 1)
        (done,) = run_stages(latest, model, data, given, (later,))
        latest = done.averaged
        log += done.log
    _keep_student(place, to, latest, log, {"start": start, "seconds": seconds})


def contest(
    place: Place, seconds: float, start: str = "distilled-regression", to: str = "distilled-adversarial"
) -> None:
    """The adversarial stage from a regression student."""
    data = place.dataset()
    paths = walked(place, data)
    model = place.model("teacher").eval().requires_grad_(False)
    settings = DistillSettings(
        ENDLESS, batch=128 if place.fast else 4, rate=2e-4, rate_warmup=50, adversarial_weight=0.1,
        loss="relativistic", discriminator_warmup=300 if place.fast else 2, discriminator_rate=5e-4, gradient_steps=2,
        r1_weight=0.001, ema=0.995, snapshot_every=5000 if place.fast else 10, seconds=seconds,
    )  # fmt: skip
    (done,) = run_stages(place.model(start), model, data, paths, (settings,))
    made = {"start": start, "weight": 0.1, "rate": 2e-4, "seed": 0, "seconds": seconds}
    _keep_student(place, to, done.averaged, done.log, made)


def _keep_student(place: Place, name: str, student: torch.nn.Module, log: list[dict], made: dict) -> None:
    """Save a student in half precision, with how it was made and some two hundred rows of its log."""
    save_student(student.cpu(), place.root / name, made, torch.float16)
    place.log(name, log[:: max(1, len(log) // 200)])
    print(f"{name}: {len(log)} updates, {log[-1]}", flush=True)


def compare(place: Place, _seconds: float) -> None:
    """Every model of the run on the same validation captions."""
    scale = _chosen_guidance(place)
    tried = (("euler", 40), ("euler", 8), ("unipc", 8), ("unipc", 4), ("euler", 4))
    samplers = [Sampler(solver, steps, scale) for solver, steps in tried]
    arms = {f"teacher, {sampler.name}": ("teacher", sampler) for sampler in samplers}
    for folder in sorted(place.root.iterdir()):
        if (folder / "distilled.json").is_file():
            arms[folder.name] = (folder.name, FOUR_STEPS)
    _compare(place, arms, "vae-sharp" if (place.root / "vae-sharp").is_dir() else "vae", "compared")


@torch.no_grad()
def _compare(place: Place, arms: dict[str, tuple[str, Sampler]], vae: str, file: str) -> list[dict]:
    """Rows on validation captions: reconstructions, then arms (folder, how it is sampled)."""
    count, decoder = (384 if place.fast else 8), place.vae(vae)
    labels = [label_of("val", i) for i in range(count)]
    condition = encode_captions([caption(x) for x in labels], place.device)
    shape = decoder.latent_shape(place.profile.frames, place.profile.size, place.profile.size)
    noise = torch.randn((count, *shape), generator=torch.Generator().manual_seed(5)).to(place.device)
    real = render_clips("val", range(50_000, 50_000 + count), size=place.profile.size, device=place.device).clips
    again = reconstruct(decoder, real, batch=32)
    judge = load_model(Judge, place.root / "judge").to(place.device).eval()
    seen = _measured(real, judge)
    rows = [_row("reconstructions", _measured(again, judge), seen)]
    for name, (folder, sampler) in arms.items():
        model = place.model(folder).eval()
        with torch.autocast(place.device.type, torch.bfloat16, enabled=place.fast):
            made = sampler.sample(model, condition, noise, batch=512)
        clips = torch.cat([decoder.decode_latents(part.float()) for part in made.split(64)])
        rows.append(_row(name, _measured(clips, judge), seen, label_indices(labels)))
        if name == next(iter(arms)):
            save_file({"clips": to_bytes(clips[:24]).cpu().contiguous()}, place.root / f"{file}-clips.safetensors")
    write_json(place.root / f"{file}.rows.json", rows)
    return rows


def _measured(clips: Tensor, judge: Judge) -> ClipMeasures:
    return ClipMeasures.join(measure(part, judge, quality=False, independent=True) for part in clips.split(64))


def _row(name: str, seen: ClipMeasures, real: ClipMeasures, asked: Tensor | None = None) -> dict:
    """Measures of clips beside real ones, distances in two feature spaces; accuracy only against what was `asked`."""
    axes = ImageAxes.fit(real.image_features)
    row = {"borders": seen.borders.mean(), "sharpness": seen.sharpness.mean() / real.sharpness.mean()}
    row |= {} if asked is None else {k: v.mean() for k, v in accuracy(seen.classes, asked).items()}
    row["judge"] = frechet_distance(seen.features, real.features)
    row["image"] = frechet_distance(axes.project(seen.image_features), axes.project(real.image_features))
    row = {"name": name} | {k: float(v) for k, v in row.items()}
    print(json.dumps(row | {k: round(v, 4) for k, v in row.items() if k != "name"}), flush=True)
    return row


#: Name -> stage, called with the place and its seconds.
STAGES: dict[str, Callable] = {
    "judge": judge, "codec": codec, "latents": latents, "sharpen": sharpen, "teacher": teacher, "guidance": guidance,
    "trajectories": trajectories, "prune": prune, "regress": regress, "contest": contest, "compare": compare,
}  # fmt: skip
