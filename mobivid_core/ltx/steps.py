"""What each step on a checkpoint of your own does, from its parsed options (see `command.py`)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mobivid_core.errors import ParameterError


def _grid(options: argparse.Namespace) -> tuple[int, int, int]:
    from mobivid_core.models.counts import latent_grid

    try:
        return latent_grid(options.frames, options.height, options.width)
    except ValueError as error:
        raise ParameterError(str(error)) from error


def _teacher(options: argparse.Namespace, rope_scale: tuple[float, ...] | None = None):  # noqa: ANN202
    """The frozen model of `--model` where it is to compute."""
    import torch

    from mobivid_core.ltx.checkpoint import computing_dtype, load_transformer, on_device
    from mobivid_core.train.distributed import processes

    device = torch.device(options.device or processes().device)
    asked = getattr(torch, options.dtype) if options.dtype else computing_dtype(options.model, device, options.stream)
    return on_device(load_transformer(options.model, asked, rope_scale), device, stream=options.stream)


def _student(folder: Path, rope_scale: tuple[float, ...] | None):  # noqa: ANN202
    """A pruned student in float32, and the plan and history beside it."""
    import torch

    from mobivid_core.files import read_json
    from mobivid_core.ltx.checkpoint import load_transformer
    from mobivid_core.ltx.plans import PLAN
    from mobivid_core.prune.plan import PruningPlan

    plan, history = PruningPlan.load(folder / PLAN), read_json(folder / "history.json", {"source": "", "steps": []})
    return load_transformer(folder, torch.float32, rope_scale), plan, history


def _finish(model, state, out: Path, plan, history: dict, data, *done: str) -> None:  # noqa: ANN001
    """Write a student with its plan and card; the first process does."""
    import torch

    from mobivid_core.ltx.checkpoint import save_transformer
    from mobivid_core.ltx.layout import empty_model
    from mobivid_core.ltx.plans import PLAN, write_card
    from mobivid_core.models.ltx import MobiVidLTXTransformer
    from mobivid_core.train.distributed import processes

    if processes().is_main_process:
        positions = {"rope_theta": model.config.rope_theta, "rope_scale": model.config.rope_scale}
        whole = empty_model(model.sizes, **positions)
        whole.load_state_dict(state, assign=True)
        save_transformer(MobiVidLTXTransformer.of(whole), out, torch.bfloat16)
        plan.save(out / PLAN)
        steps = [*history["steps"], *done]
        write_card(out, plan, history["source"], data.facts.shape[1:], data.facts.text_tokens, steps)
        print(f"saved in {out}")


def inspect_step(options: argparse.Namespace) -> None:
    """Parameters, FLOPs and bytes by layer kind, floors of pruning, and what the model fits on."""
    from mobivid_core.ltx.checkpoint import find_transformer
    from mobivid_core.ltx.look import inspect

    print(inspect(find_transformer(options.model), _grid(options), options.text_tokens))


def encode_step(options: argparse.Namespace) -> None:
    """Videos and captions to shards of latents and text states; resumable, many processes."""
    import torch

    from mobivid_core.ltx.encode import encode, pack

    if options.latents:
        count = pack(options.latents, options.out, frame_rate=options.fps, ratio=(8, 32, 32))
        print(f"{count} samples in {options.out}")
        return
    if not options.pipeline or not options.videos:
        raise ParameterError("give --pipeline and --videos, or --latents")
    sizes = {"frames": options.frames, "height": options.height, "width": options.width}
    many = {"per_shard": options.per_shard, "per_file": options.per_file, "tokens": options.text_tokens}
    computing = {"dtype": getattr(torch, options.dtype), "device": options.device or None}
    print(encode(options.pipeline, options.videos, options.out, **sizes, **many, **computing))


def score_step(options: argparse.Namespace) -> None:
    """The damage of removing each block, head and neuron; resumable to the sample."""
    from mobivid_core.files import write_json
    from mobivid_core.ltx.checkpoint import find_transformer
    from mobivid_core.ltx.score import ScoreSettings, score
    from mobivid_core.ltx.shards import LatentShards

    data = LatentShards(options.data, find_transformer(options.model).sizes)
    settings = ScoreSettings(options.samples, options.probes, options.seed)
    calibration = data.calibration(settings.samples, settings.seed)
    found = score(_teacher(options, data.facts.rope_scale), calibration, settings, options.out)
    facts = {"estimator": found.estimator, "data": f"{len(data)} clips, {data.facts.source}"}
    write_json(options.out / "scores.json", facts | {"shape": list(data.facts.shape), "tokens": data.facts.text_tokens})
    print(f"{found.estimator} in {options.out}: {found.seconds:.0f} s")


def plan_step(options: argparse.Namespace) -> None:
    """Which blocks, heads and neurons stay within a budget."""
    from mobivid_core.files import read_json
    from mobivid_core.ltx import plans
    from mobivid_core.ltx.checkpoint import find_transformer
    from mobivid_core.ltx.look import sizes_line
    from mobivid_core.sensitivity.scores import Scores

    sizes, facts = find_transformer(options.model).sizes, read_json(options.scores / "scores.json")
    if not facts:
        raise ParameterError(f"no scores in {options.scores}; make them with `mobivid score`")
    unit = next(unit for unit in plans.UNITS if getattr(options, unit) is not None)
    cost = plans.cost_of(sizes, unit, tuple(facts["shape"][1:]), facts["tokens"], chip=options.chip)
    scores = Scores.load(options.scores, facts["estimator"])
    how = {"levels": options.levels, "multiple": options.multiple, "data": facts["data"]}
    plan = plans.make_plan(sizes, scores, cost, getattr(options, unit), **how)
    plan.save(options.out)
    print(f"{sizes_line(sizes)}\n-> {sizes_line(plan.sizes)}; {cost.total(plan.sizes):,.4g} {cost.unit}")


def prune_step(options: argparse.Namespace) -> None:
    """Write the smaller model: config, safetensors, plan and card."""
    from mobivid_core.ltx.checkpoint import load_transformer
    from mobivid_core.ltx.look import sizes_line
    from mobivid_core.ltx.plans import cut
    from mobivid_core.prune.plan import PruningPlan

    plan = PruningPlan.load(options.plan)
    cut(load_transformer(options.model), plan, options.out, options.model.name, _grid(options), options.text_tokens)
    print(f"{sizes_line(plan.sizes)} in {options.out}")


def refit_step(options: argparse.Namespace) -> None:
    """Solve for the student's output projections in closed form; resumable to the layer."""
    from mobivid_core.ltx.shards import LatentShards, as_inputs
    from mobivid_core.prune.refit import refit
    from mobivid_core.sensitivity.staged import SUBLAYERS

    data = LatentShards(options.data)
    teacher = _teacher(options, data.facts.rope_scale)
    data = LatentShards(options.data, teacher.sizes)
    student, plan, history = _student(options.student, data.facts.rope_scale)
    weight = next(teacher.parameters())
    student = student.to(weight.device if weight.device.type != "meta" else options.device or "cpu", teacher.dtype)
    calibration = as_inputs(data.calibration(options.samples, options.seed), student)
    names = [f"blocks.{i}.{part}" for i in range(len(student.blocks)) for part in SUBLAYERS] + ["proj_out"]
    if unknown := set(options.layers or ()) - set(names):
        raise ParameterError(
            f"no layer {sorted(unknown)[0]!r} in the student; its layers are {names[0]} to {names[-1]}"
        )
    print(f"refit: {len(options.layers or names)} layers on {options.samples} clips")
    kept = options.out / "layers" / f"{options.student.name}-{options.samples}-{options.seed}-{options.ridge:g}"
    made, report = refit(
        student, teacher, plan, calibration, ridge=options.ridge, batch=1, folder=kept, only=options.layers
    )
    print(f"mean error of a layer {sum(report.before) / len(report.before):.3f} -> "
          f"{sum(report.after) / len(report.after):.3f}")  # fmt: skip
    _finish(made, made.state_dict(), options.out, plan, history, data, f"refit on {options.samples} clips")


def _training(options: argparse.Namespace, name: str, work: Callable) -> None:
    """Read what a training needs, print its estimate, do its work, and write the student with what was done."""
    from mobivid_core.ltx import training
    from mobivid_core.ltx.shards import LatentShards

    data = LatentShards(options.data)
    teacher = _teacher(options, data.facts.rope_scale)
    data = LatentShards(options.data, teacher.sizes)
    student, plan, history = _student(options.student, data.facts.rope_scale)
    settings = training.StudentSettings(
        options.steps, options.batch, options.rate, data_weight=getattr(options, "data_weight", 0.0),
        bf16=options.bf16, accumulate=options.accumulate, sharded=options.shard, watch_every=options.watch,
        seed=options.seed,
    )  # fmt: skip
    own, theirs = (_pass_flops(model, data) for model in (student, teacher))
    # A checkpointed step of the student is four forward passes; recovery asks the teacher once a clip.
    flops = options.steps * options.batch * (4 * own + (theirs if name == "recovery" else 0))
    print(f"{name}: {options.steps} steps x {options.batch} clips, {_hours(flops)}")
    done = work(student, teacher, plan, data, settings)
    _finish(student, training.gathered(student), options.out, plan, history, data, *done)


def _pass_flops(model, data) -> float:  # noqa: ANN001
    from mobivid_core.models.counts import dit_flops

    return float(dit_flops(model.sizes, data.facts.shape[1:], data.facts.text_tokens)["total"])


def _hours(flops: float) -> str:
    pflop = flops / 1e15
    return f"{pflop:,.3g} PFLOP: about {pflop / 0.1 / 3600:,.3g} hours of one GPU at 100 TFLOP/s (derived)"


def _done(what: str, result) -> str:  # noqa: ANN001
    """A line of the student's history."""
    return what + (f" ({result.ended})" if result.ended else "")


def recover_step(options: argparse.Namespace) -> None:
    """Train the student to answer as its teacher does; resumable to the step, on one process or many."""
    from mobivid_core.ltx.training import recover

    def work(student, teacher, plan, data, how) -> list[str]:  # noqa: ANN001
        result = recover(student, teacher, plan, data, how, options.out / "state")
        return [_done(f"recovery, {how.steps} steps of {how.batch}", result)]

    _training(options, "recovery", work)


def distill_step(options: argparse.Namespace) -> None:
    """Train the student to reach in four unguided steps what its guided teacher reaches in many.

    With --adversarial, a discriminator on the teacher's features joins in after that.
    """
    from mobivid_core.distill.costs import DistillCosts
    from mobivid_core.ltx.adversarial import compete, stage_settings
    from mobivid_core.ltx.training import distil
    from mobivid_core.ltx.trajectories import trajectories
    from mobivid_core.train.distributed import agreed

    if options.warmup is not None and not options.adversarial:
        raise ParameterError("--warmup is of the adversarial stage; ask for that with --adversarial STEPS")
    if options.adversarial and options.shard:
        raise ParameterError("--adversarial does not work with --shard: every process needs the whole student")

    def work(student, teacher, _, data, how) -> list[str]:  # noqa: ANN001
        state, stage = options.out / "state", None
        if options.adversarial:
            stage = stage_settings(how, options.adversarial, options.warmup)
            costs = DistillCosts(_pass_flops(student, data), _pass_flops(teacher, data), checkpointed=True)
            print(f"adversarial stage: {stage.discriminator_warmup} updates of the discriminator alone, then "
                  f"{stage.steps} steps x {stage.batch} clips, {_hours(costs.training(stage))}")  # fmt: skip
        given = options.captions, options.teacher_steps, options.guidance, options.seed
        files = trajectories(teacher, data, state / "trajectories", *given)
        result = distil(student, files, data, how, state)
        done = [_done(f"distillation, {how.steps} steps of {how.batch}", result)]
        if stage and agreed(not result.ended):
            result = compete(student, teacher, data, files, how, stage, state)
            what = f"adversarial stage, {stage.steps} steps of {stage.batch} after {stage.discriminator_warmup}"
            done.append(_done(f"{what} of the discriminator alone", result))
        elif stage:
            print("no adversarial stage: the regression before it ended early")
        return done

    _training(options, "distillation", work)


def export_step(options: argparse.Namespace) -> int:
    """Core ML packages in parts, each read back and verified; 1 if one is outside the gates."""
    import torch

    from mobivid_core.ltx.checkpoint import load_transformer
    from mobivid_core.ltx.packages import export

    model = load_transformer(options.model, torch.float32)
    if options.block is not None and options.block >= len(model.blocks):
        raise ParameterError(f"--block must be below {len(model.blocks)}, got {options.block}")
    facts = {"frames": options.frames, "source": options.model.name, "block": options.block}
    done = export(model, options.out, _grid(options), options.text_tokens, **facts)
    return 0 if all(v.passed for v in done) else 1
