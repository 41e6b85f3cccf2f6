"""What each step on a checkpoint of your own does, from its parsed options (see `command.py`)."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from mobivid_core.coreml.bundle import STEPS, timestep_tables, write_bundle
from mobivid_core.coreml.graphs import Graph, dit_chunks
from mobivid_core.coreml.steps import DiTStep, host_modulation
from mobivid_core.coreml.verify import convert_and_verify
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.errors import ParameterError
from mobivid_core.files import read_json, write_json
from mobivid_core.flow.sampling import textbook_sigmas
from mobivid_core.ltx import plans, training
from mobivid_core.ltx.adversarial import compete, stage_settings
from mobivid_core.ltx.checkpoint import computing_dtype, find_transformer, load_transformer, on_device
from mobivid_core.ltx.encode import encode, pack
from mobivid_core.ltx.layout import empty_model
from mobivid_core.ltx.look import inspect, sizes_line
from mobivid_core.ltx.score import score
from mobivid_core.ltx.shards import LatentShards, as_inputs
from mobivid_core.models.counts import Grid, latent_grid
from mobivid_core.models.dit import SUBLAYERS, MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import plan_for_budget
from mobivid_core.prune.refit import refit
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.scores import Scores
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
    calibration = data.calibration(options.samples, options.seed)
    found = score(_teacher(options, data), calibration, options.probes, options.seed, options.out)
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
    given, how = _training(options, "recovery", data_weight=options.data_weight)
    result = training.recover(given, how, options.out / "state")
    _finish(options, given, given.student, _done(f"recovery, {how.steps} steps of {how.batch}", result))


def distill_step(options: argparse.Namespace) -> None:
    """Train the student to reach in four unguided steps what its guided teacher reaches in many.

    With --adversarial, a discriminator on the teacher's features joins in after that.
    """
    if options.warmup is not None and not options.adversarial:
        raise ParameterError("--warmup is of the adversarial stage; ask for that with --adversarial STEPS")
    if options.adversarial and options.shard:
        raise ParameterError("--adversarial does not work with --shard: every process needs the whole student")
    given, how = _training(options, "distillation")
    state, stage = options.out / "state", stage_settings(how, options.adversarial, options.warmup)
    if stage:
        costs = DistillCosts(given.flops(given.student), given.flops(given.teacher), checkpointed=True)
        print(
            f"adversarial stage: {stage.discriminator_warmup} updates of the discriminator alone, then "
            f"{stage.steps} steps x {stage.batch} clips, {_hours(costs.training(stage))}"
        )
    asked = options.captions, options.teacher_steps, options.guidance, options.seed
    files = training.trajectories(given.teacher, given.data, state / "trajectories", *asked)
    result = training.distil(given, files, how, state)
    done = [_done(f"distillation, {how.steps} steps of {how.batch}", result)]
    if stage and agreed(not result.ended):
        result = compete(given, files, how, stage, state)
        what = f"adversarial stage, {stage.steps} steps of {stage.batch} after {stage.discriminator_warmup}"
        done.append(_done(f"{what} of the discriminator alone", result))
    elif stage:
        print("no adversarial stage: the regression before it ended early")
    _finish(options, given, given.student, *done)


@torch.no_grad()
def export_step(options: argparse.Namespace) -> int:
    """Core ML packages in parts, each read back and verified; 1 if one is outside the gates.

    The transformer alone: decoder and text encoder of LTX-Video are not converted here.
    """
    model, grid, block = load_transformer(options.model, torch.float32), _grid(options), options.block
    if block is None:
        parts = dit_chunks(model, grid, options.text_tokens)
    elif block < len(model.blocks):
        parts = [_one_block(model, block, grid, options.text_tokens)]
    else:
        raise ParameterError(f"--block must be below {len(model.blocks)}, got {block}")
    done = []
    for graph in parts:
        made = convert_and_verify(graph, options.out)
        done.append(made)
        print(
            f"{graph.name}: {made.package.megabytes:,.1f} MB in {made.package.seconds:.0f} s; relative error "
            f"{made.fp32_error:.1e} (float32), {made.fp16_error:.1e} (float16)"
        )
    facts = {"source": options.model.name, "frames": options.frames}
    tables, runs = timestep_tables(model, textbook_sigmas(STEPS)), {made.package.path.name: STEPS for made in done}
    write_bundle(options.out, done, tables, runs=runs, **facts)
    return 0 if all(made.passed for made in done) else 1


def _one_block(model: MobiVidTransformer3DModel, index: int, grid: Grid, text_tokens: int) -> Graph:
    """Block `index` alone, on random token states."""
    step = DiTStep(model, grid, range(index, index + 1))
    for name in ("proj_in", "caption_projection", "proj_out"):
        if hasattr(step, name):
            delattr(step, name)
    step.enters = step.leaves = False  # whichever block it is, it takes and gives token states
    generator, hidden = torch.Generator().manual_seed(0), model.config.hidden
    inputs = {
        "tokens": torch.randn(1, grid[0] * grid[1] * grid[2], hidden, generator=generator),
        "projected_text": torch.randn(1, text_tokens, hidden, generator=generator),
        "text_mask": torch.zeros(1, text_tokens),
        "modulation": host_modulation(model, torch.tensor([500.0]))[:, 6 * index : 6 * index + 6],
    }
    return Graph(f"block{index}", step, inputs, ("tokens_out", "text_out"))


def _given(options: argparse.Namespace) -> training.Given:
    data = LatentShards(options.data, find_transformer(options.model).sizes)
    teacher, plan = _teacher(options, data), PruningPlan.load(options.student / plans.PLAN)
    student = load_transformer(options.student, torch.float32, data.facts.rope_scale)
    history = read_json(options.student / plans.HISTORY, {"source": "", "steps": []})
    return training.Given(teacher, student, plan, data, history)


def _teacher(options: argparse.Namespace, data: LatentShards) -> MobiVidTransformer3DModel:
    device = torch.device(options.device or processes().device)
    asked = getattr(torch, options.dtype) if options.dtype else computing_dtype(options.model, device, options.stream)
    return on_device(load_transformer(options.model, asked, data.facts.rope_scale), device, stream=options.stream)


def _training(
    options: argparse.Namespace, name: str, data_weight: float = 0.0
) -> tuple[training.Given, training.StudentSettings]:
    """Read what a training needs, and print its estimate."""
    given = _given(options)
    # A checkpointed step of the student is four forward passes; recovery evaluates the teacher once a clip.
    flops = 4 * given.flops(given.student) + (given.flops(given.teacher) if name == "recovery" else 0)
    print(f"{name}: {options.steps} steps x {options.batch} clips, {_hours(options.steps * options.batch * flops)}")
    return given, training.StudentSettings(
        options.steps, options.batch, options.rate, data_weight, options.bf16, options.accumulate, options.shard,
        options.watch, options.seed,
    )  # fmt: skip


def _finish(options: argparse.Namespace, given: training.Given, student: MobiVidTransformer3DModel, *done: str) -> None:
    """Write a student with its plan, card and history; the first process does."""
    state = {k: whole(v.detach()).cpu() for k, v in student.state_dict().items()}  # shards: every process has to ask
    if not processes().is_main_process:
        return
    made = empty_model(student.sizes, rope_theta=student.config.rope_theta, rope_scale=student.config.rope_scale)
    made.load_state_dict(state, assign=True)
    facts, source, steps = given.data.facts, given.history["source"], [*given.history["steps"], *done]
    clip = facts.shape[1:], facts.text_tokens
    plans.write_student(made, given.plan, options.out, source, steps, *clip, torch.bfloat16)
    print(f"saved in {options.out}")


def _grid(options: argparse.Namespace) -> Grid:
    return latent_grid(options.frames, options.height, options.width)


def _hours(flops: float) -> str:
    pflop = flops / 1e15
    return f"{pflop:,.3g} PFLOP: about {pflop / 0.1 / 3600:,.3g} hours of one GPU at 100 TFLOP/s (derived)"


def _done(what: str, result: TrainResult) -> str:
    """A line of the student's history."""
    return what + (f" ({result.ended})" if result.ended else "")
