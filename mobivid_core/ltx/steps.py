"""What each step on a checkpoint of your own does, from its parsed options (see `command.py`)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mobivid_core.distill.costs import DistillCosts
from mobivid_core.errors import ParameterError
from mobivid_core.files import read_json, write_json
from mobivid_core.ltx import plans, training
from mobivid_core.ltx.adversarial import compete, stage_settings
from mobivid_core.ltx.checkpoint import computing_dtype, find_transformer, load_transformer, on_device
from mobivid_core.ltx.encode import encode, pack
from mobivid_core.ltx.layout import empty_model
from mobivid_core.ltx.look import inspect, sizes_line
from mobivid_core.ltx.packages import export
from mobivid_core.ltx.score import ScoreSettings, score
from mobivid_core.ltx.shards import LatentShards, as_inputs
from mobivid_core.ltx.trajectories import trajectories
from mobivid_core.models.counts import Grid, dit_flops, latent_grid
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import plan_for_budget
from mobivid_core.prune.refit import refit
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.sensitivity.staged import SUBLAYERS
from mobivid_core.train.distributed import agreed, processes, whole
from mobivid_core.train.loop import TrainResult


def inspect_step(options: argparse.Namespace) -> None:
    """Parameters, FLOPs and bytes by layer kind, floors of pruning, and what the model fits on."""
    print(inspect(find_transformer(options.model), _grid(options), options.text_tokens))


def encode_step(options: argparse.Namespace) -> None:
    """Videos and captions to shards of latents and text states; resumable, many processes."""
    if options.latents:
        print(f"{pack(options.latents, options.out, options.fps)} samples in {options.out}")
        return
    if not options.pipeline or not options.videos:
        raise ParameterError("give --pipeline and --videos, or --latents")
    names = ("frames", "height", "width", "per_shard", "per_file", "device")
    how = {name: getattr(options, name) for name in names}
    how |= {"tokens": options.text_tokens, "dtype": getattr(torch, options.dtype)}
    print(encode(options.pipeline, options.videos, options.out, **how))


def score_step(options: argparse.Namespace) -> None:
    """The damage of removing each block, head and neuron; resumable to the sample."""
    data = LatentShards(options.data, find_transformer(options.model).sizes)
    settings = ScoreSettings(options.samples, options.probes, options.seed)
    calibration = data.calibration(settings.samples, settings.seed)
    found = score(_teacher(options, data), calibration, settings, options.out)
    facts = {"estimator": found.estimator, "data": f"{len(data)} clips, {data.facts.source}"}
    write_json(options.out / "scores.json", facts | {"shape": list(data.facts.shape), "tokens": data.facts.text_tokens})
    print(f"{found.estimator} in {options.out}: {found.seconds:.0f} s")


def plan_step(options: argparse.Namespace) -> None:
    """Which blocks, heads and neurons stay within a budget."""
    sizes, facts = find_transformer(options.model).sizes, read_json(options.scores / "scores.json")
    if not facts:
        raise ParameterError(f"no scores in {options.scores}; make them with `mobivid score`")
    unit = next(unit for unit in plans.UNITS if getattr(options, unit) is not None)
    cost = plans.cost_of(sizes, unit, tuple(facts["shape"][1:]), facts["tokens"], options.chip)
    budget, scores = getattr(options, unit), Scores.load(options.scores, facts["estimator"])
    budget *= cost.total(sizes) if budget <= 1 else 1
    plan = plan_for_budget(scores, sizes, budget, options.levels, cost=cost, multiple=options.multiple)
    left = cost.total(plan.sizes)
    replace(plan, notes=plan.notes | {"score_notes": scores.notes, "data": facts["data"], "left": left}).save(
        options.out
    )
    print(f"{sizes_line(sizes)}\n-> {sizes_line(plan.sizes)}; {left:,.4g} {cost.unit}")


def prune_step(options: argparse.Namespace) -> None:
    """Write the smaller model: config, safetensors, plan and card."""
    plan, model = PruningPlan.load(options.plan), load_transformer(options.model)
    student, source = prune(model, plan), options.model.name
    plans.write_student(student, plan, options.out, source, (), _grid(options), options.text_tokens)
    print(f"{sizes_line(plan.sizes)} in {options.out}")


def refit_step(options: argparse.Namespace) -> None:
    """Solve for the student's output projections in closed form; resumable to the layer."""
    given = _given(options)
    weight = next(given.teacher.parameters())
    device = weight.device if weight.device.type != "meta" else options.device or "cpu"
    student = given.student.to(device, given.teacher.dtype)
    calibration = as_inputs(given.data.calibration(options.samples, options.seed), student)
    names = [f"blocks.{i}.{part}" for i in range(len(student.blocks)) for part in SUBLAYERS] + ["proj_out"]
    if unknown := set(options.layers or ()) - set(names):
        raise ParameterError(
            f"no layer {sorted(unknown)[0]!r} in the student; its layers are {names[0]} to {names[-1]}"
        )
    print(f"refit: {len(options.layers or names)} layers on {options.samples} clips")
    kept = options.out / "layers" / f"{options.student.name}-{options.samples}-{options.seed}-{options.ridge:g}"
    how = {"ridge": options.ridge, "batch": 1, "folder": kept, "only": options.layers}
    made, report = refit(student, given.teacher, given.plan, calibration, **how)
    before, after = (sum(errors) / len(errors) for errors in (report.before, report.after))
    print(f"mean error of a layer {before:.3f} -> {after:.3f}")
    _finish(options, given, made, f"refit on {options.samples} clips")


def recover_step(options: argparse.Namespace) -> None:
    """Train the student to answer as its teacher does; resumable to the step, on one process or many."""

    def work(given: Given, how: training.StudentSettings) -> list[str]:
        result = training.recover(given.student, given.teacher, given.plan, given.data, how, options.out / "state")
        return [_done(f"recovery, {how.steps} steps of {how.batch}", result)]

    _train(options, "recovery", work)


def distill_step(options: argparse.Namespace) -> None:
    """Train the student to reach in four unguided steps what its guided teacher reaches in many.

    With --adversarial, a discriminator on the teacher's features joins in after that.
    """
    if options.warmup is not None and not options.adversarial:
        raise ParameterError("--warmup is of the adversarial stage; ask for that with --adversarial STEPS")
    if options.adversarial and options.shard:
        raise ParameterError("--adversarial does not work with --shard: every process needs the whole student")

    def work(given: Given, how: training.StudentSettings) -> list[str]:
        state, stage = options.out / "state", None
        if options.adversarial:
            stage = stage_settings(how, options.adversarial, options.warmup)
            costs = DistillCosts(given.flops(given.student), given.flops(given.teacher), checkpointed=True)
            print(
                f"adversarial stage: {stage.discriminator_warmup} updates of the discriminator alone, then "
                f"{stage.steps} steps x {stage.batch} clips, {_hours(costs.training(stage))}"
            )
        asked = options.captions, options.teacher_steps, options.guidance, options.seed
        files = trajectories(given.teacher, given.data, state / "trajectories", *asked)
        result = training.distil(given.student, files, given.data, how, state)
        done = [_done(f"distillation, {how.steps} steps of {how.batch}", result)]
        if stage and agreed(not result.ended):
            result = compete(given.student, given.teacher, given.data, files, how, stage, state)
            what = f"adversarial stage, {stage.steps} steps of {stage.batch} after {stage.discriminator_warmup}"
            done.append(_done(f"{what} of the discriminator alone", result))
        elif stage:
            print("no adversarial stage: the regression before it ended early")
        return done

    _train(options, "distillation", work)


def export_step(options: argparse.Namespace) -> int:
    """Core ML packages in parts, each read back and verified; 1 if one is outside the gates."""
    model, block = load_transformer(options.model, torch.float32), options.block
    if block is not None and block >= len(model.blocks):
        raise ParameterError(f"--block must be below {len(model.blocks)}, got {block}")
    facts = block, options.frames, options.model.name
    done = export(model, options.out, _grid(options), options.text_tokens, *facts)
    return 0 if all(package.passed for package in done) else 1


@dataclass(frozen=True)
class Given:
    """What refit, recovery and distillation start from."""

    teacher: MobiVidTransformer3DModel  # frozen, where it is to compute
    student: MobiVidTransformer3DModel  # in float32
    plan: PruningPlan  # of the student
    history: dict  # of the student: the source, and the steps done since
    data: LatentShards

    def flops(self, model: MobiVidTransformer3DModel) -> float:
        """FLOPs of one forward pass on one clip of the data."""
        return float(dit_flops(model.sizes, self.data.facts.shape[1:], self.data.facts.text_tokens)["total"])


def _given(options: argparse.Namespace) -> Given:
    data, folder = LatentShards(options.data, find_transformer(options.model).sizes), options.student
    teacher, plan = _teacher(options, data), PruningPlan.load(folder / plans.PLAN)
    history = read_json(folder / "history.json", {"source": "", "steps": []})
    return Given(teacher, load_transformer(folder, torch.float32, data.facts.rope_scale), plan, history, data)


def _teacher(options: argparse.Namespace, data: LatentShards) -> MobiVidTransformer3DModel:
    device = torch.device(options.device or processes().device)
    asked = getattr(torch, options.dtype) if options.dtype else computing_dtype(options.model, device, options.stream)
    return on_device(load_transformer(options.model, asked, data.facts.rope_scale), device, stream=options.stream)


def _train(
    options: argparse.Namespace, name: str, work: Callable[[Given, training.StudentSettings], list[str]]
) -> None:
    """Read what a training needs, print its estimate, do its work, and write the student with what was done."""
    given = _given(options)
    settings = training.StudentSettings(
        options.steps, options.batch, options.rate, data_weight=getattr(options, "data_weight", 0.0),
        bf16=options.bf16, accumulate=options.accumulate, sharded=options.shard, watch_every=options.watch,
        seed=options.seed,
    )  # fmt: skip
    # A checkpointed step of the student is four forward passes; recovery evaluates the teacher once a clip.
    flops = 4 * given.flops(given.student) + (given.flops(given.teacher) if name == "recovery" else 0)
    print(f"{name}: {options.steps} steps x {options.batch} clips, {_hours(options.steps * options.batch * flops)}")
    done = work(given, settings)
    _finish(options, given, given.student, *done)


def _finish(options: argparse.Namespace, given: Given, student: MobiVidTransformer3DModel, *done: str) -> None:
    """Write a student with its plan and card; the first process does."""
    state = {k: whole(v.detach()).cpu() for k, v in student.state_dict().items()}  # shards: every process has to ask
    if not processes().is_main_process:
        return
    made = empty_model(student.sizes, rope_theta=student.config.rope_theta, rope_scale=student.config.rope_scale)
    made.load_state_dict(state, assign=True)
    steps, facts = [*given.history["steps"], *done], given.data.facts
    clip = facts.shape[1:], facts.text_tokens
    plans.write_student(made, given.plan, options.out, given.history["source"], steps, *clip, torch.bfloat16)
    print(f"saved in {options.out}")


def _grid(options: argparse.Namespace) -> Grid:
    return latent_grid(options.frames, options.height, options.width)


def _hours(flops: float) -> str:
    pflop = flops / 1e15
    return f"{pflop:,.3g} PFLOP: about {pflop / 0.1 / 3600:,.3g} hours of one GPU at 100 TFLOP/s (derived)"


def _done(what: str, result: TrainResult) -> str:
    """A line of the student's history."""
    return what + (f" ({result.ended})" if result.ended else "")
