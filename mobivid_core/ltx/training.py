"""Recovery and step distillation of a pruned student, through the one training loop: a GPU, many, or sharded (FSDP2).

Paper: KD-guided recovery after pruning, then distillation to four steps. Teacher and shards are read as needed: the
teacher stays frozen in its own type, the student trains in float32 under bfloat16 autocast, backward passes are
checkpointed. Distillation regresses the guided teacher's chords (`distill.regression`) on trajectories that are
computed once and kept on disk; the adversarial part of the paper's recipe is not wired here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mobivid_core.distill.trajectory import (
    STUDENT_STEPS,
    step_generator,
    student_sigmas,
    teacher_states,
)
from mobivid_core.errors import ParameterError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import TIMESTEP_SCALE, flow_batch, predicted_velocity
from mobivid_core.flow.sampling import sample_latents
from mobivid_core.ltx.alarms import Watch
from mobivid_core.ltx.shards import LatentShards
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.matching import matched_features
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.sensitivity.kd import FEATURE_WEIGHT, MatchedFeatures, kd_loss
from mobivid_core.train.distributed import SplitLoss, processes, whole
from mobivid_core.train.loop import TrainResult, TrainSettings, train

#: Clips that the alarms sample, and their Euler steps.
WATCHED, WATCH_STEPS = 4, 8


@dataclass(frozen=True)
class StudentSettings:
    """How a student is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Clips a step, over all processes.
        learning_rate: Peak rate of AdamW.
        feature_weight: Weight of the matched states in recovery's KD loss.
        data_weight: Weight of the clips' own velocities in recovery.
        drop_text: Share of unconditional samples in recovery.
        bf16: Autocast.
        accumulate: Micro-batches a process.
        sharded: FSDP2; alarms then look at the loss alone, since sampling would need every process.
        watch_every: Rows of the log between alarms' checks; 0 switches them off.
        seed: Of all draws.
    """

    steps: int
    batch: int = 8
    learning_rate: float = 1e-4
    feature_weight: float = FEATURE_WEIGHT
    data_weight: float = 0.0
    drop_text: float = 0.1
    bf16: bool = False
    accumulate: int = 1
    sharded: bool = False
    watch_every: int = 1
    seed: int = 0

    def loop(self) -> TrainSettings:
        """Settings of the training loop."""
        return TrainSettings(
            steps=self.steps, learning_rate=self.learning_rate, warmup=max(1, self.steps // 20), weight_decay=0.0,
            ema=0.0, log_every=max(1, self.steps // 20), save_every_s=600.0, seed=self.seed, bf16=self.bf16,
            accumulate=self.accumulate, sharded=self.sharded,
        )  # fmt: skip


def recover(
    student: MobiVidTransformer3DModel, teacher: MobiVidTransformer3DModel, plan: PruningPlan, data: LatentShards,
    settings: StudentSettings, folder: Path, say: Callable[[str], None] = print,
) -> TrainResult:  # fmt: skip
    """Train a pruned student in place to answer as its teacher does.

    Args:
        student: `prune(teacher, plan)`, refitted or not, in float32.
        teacher: The plan's source, on the training device.
        plan: Matches student blocks with teacher blocks.
        data: Clips and captions.
        settings: See `StudentSettings`.
        folder: Keeps the training state and the last good weights.
        say: Takes the estimate and alarms.
    """
    matched = matched_features(plan) if settings.feature_weight else MatchedFeatures()

    def draw(_: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        latents, text, mask = data.draw(settings.batch, generator)
        captions = Condition(text, mask, data.null_text, data.null_mask)
        return flow_batch(latents, captions, generator, drop_text=settings.drop_text)

    def error(noisy: Tensor, timestep: Tensor, text: Tensor, mask: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(noisy.device.type, enabled=False):
            given = noisy.to(teacher.dtype), timestep, text.to(teacher.dtype), mask
            answer, states = teacher(*given, feature_blocks=matched.teacher, return_dict=False)
        own = student(noisy, timestep, text, mask, feature_blocks=matched.student, return_dict=False)
        own = own[0].float(), [s.float() for s in own[1]]
        terms = kd_loss(own, (answer.float(), [s.float() for s in states]), settings.feature_weight)
        if settings.data_weight:
            clips = (own[0] - wanted).square().sum() / wanted.square().sum()
            terms = {**terms, "data": clips, "loss": terms["loss"] + settings.data_weight * clips}
        return terms

    return _train(student, SplitLoss(draw, error), data, settings, folder, "recovery", say, steps=WATCH_STEPS)


def distil(
    student: MobiVidTransformer3DModel, teacher: MobiVidTransformer3DModel, data: LatentShards,
    settings: StudentSettings, folder: Path, *, captions: int, teacher_steps: int = 40, guidance: float = 3.0,
    say: Callable[[str], None] = print,
) -> TrainResult:  # fmt: skip
    """Train a student in place to reach in four unguided steps what its guided teacher reaches in many.

    Args:
        student: In float32.
        teacher: On the training device.
        data: Captions; clips are only looked at by the alarms.
        settings: See `StudentSettings`.
        folder: Keeps trajectories, training state and last good weights.
        captions: Trajectories to compute, one a caption.
        teacher_steps: Euler steps of the teacher, a multiple of four.
        guidance: Its guidance scale.
        say: Takes estimates and alarms.
    """
    files = trajectories(teacher, data, folder / "trajectories", captions, teacher_steps, guidance, settings.seed, say)
    sigmas = student_sigmas()
    width = (sigmas[:-1] - sigmas[1:])[:, None, None, None, None]

    def draw(_: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(len(files), (settings.batch,), generator=generator).tolist()
        first = int(torch.randint(STUDENT_STEPS, (1,), generator=generator))
        levels = (torch.arange(settings.batch) + first) % STUDENT_STEPS
        found = [_trajectory(files[row]) for row in rows]
        states = torch.stack([f["states"][level].float() for f, level in zip(found, levels, strict=True)])
        ends = torch.stack([f["states"][level + 1].float() for f, level in zip(found, levels, strict=True)])
        text, mask = (torch.stack([f[name] for f in found]) for name in ("text", "mask"))
        return states, TIMESTEP_SCALE * sigmas[levels], text.float(), mask, (states - ends) / width[levels]

    def error(x: Tensor, timestep: Tensor, text: Tensor, mask: Tensor, chord: Tensor) -> Tensor:
        return (predicted_velocity(student(x, timestep, text, mask)).float() - chord).square().mean()

    return _train(student, SplitLoss(draw, error), data, settings, folder, "distillation", say, steps=STUDENT_STEPS)


def trajectories(
    teacher: MobiVidTransformer3DModel, data: LatentShards, folder: Path, captions: int, steps: int, guidance: float,
    seed: int, say: Callable[[str], None] = print,
) -> list[Path]:  # fmt: skip
    """Compute the guided teacher's states at the student's noise levels, a file a caption, each once.

    The processes of a run share the work. Noise depends on (seed, caption) alone.

    Raises:
        ParameterError: No captions, or steps that are no multiple of four.
    """
    if captions < 1:
        raise ParameterError(f"distillation needs at least one caption, got {captions}")
    me, device = processes(), next(teacher.parameters()).device
    # Guidance asks for the empty caption too: two evaluations a step.
    say(f"trajectories: {captions} captions x {steps} steps, {2 * captions * steps:,} evaluations of the teacher")
    place = folder / f"steps{steps}-guidance{guidance:g}-seed{seed}"
    files = [place / f"{i:06d}.safetensors" for i in range(captions)]
    null = data.null_text.to(device), data.null_mask.to(device)
    for i in range(me.process_index, captions, me.num_processes):
        if read_tensors(files[i]):
            continue
        _, text, mask = data[i % len(data)]
        condition = Condition(text[None].to(device), mask[None].to(device), *null)
        noise = torch.randn(1, *data.facts.shape, generator=step_generator(seed, i)).to(device)
        states = teacher_states(in_own_type(teacher), condition, noise, steps=steps, guidance=guidance)[0]
        content = {"states": states.half(), "text": text.half(), "mask": mask}
        write_bytes(files[i], save({k: v.cpu().contiguous() for k, v in content.items()}))
    me.wait_for_everyone()
    return files


def _trajectory(path: Path) -> dict[str, Tensor]:
    found = read_tensors(path)
    if not found:
        raise ParameterError(f"{path} is missing or torn; delete it and run again, it is made anew")
    return found


def in_own_type(model: MobiVidTransformer3DModel) -> Callable[..., Tensor]:
    """A model as a velocity in float32, computed in the model's own type and device."""

    def velocity(x: Tensor, timestep: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        weight = next(model.parameters())
        given = x.to(weight.device, weight.dtype), timestep.to(weight.device), text.to(weight.device, weight.dtype)
        return predicted_velocity(model(*given, mask.to(weight.device))).float()

    return velocity


def _train(
    student: MobiVidTransformer3DModel, loss: SplitLoss, data: LatentShards, settings: StudentSettings, folder: Path,
    title: str, say: Callable[[str], None], steps: int,
) -> TrainResult:  # fmt: skip
    student.requires_grad_(True).enable_gradient_checkpointing()
    watch = None
    if settings.watch_every and not settings.sharded:
        rows = torch.arange(min(WATCHED, len(data)))
        real, text, mask = data.batch(rows)
        if len(rows) < 2:
            say("one clip only: no alarms on samples, which compare clips")
        else:
            noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(settings.seed))

            def sample(model: nn.Module) -> Tensor:
                device = next(model.parameters()).device
                captions = Condition(text.to(device), mask.to(device))
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                    return sample_latents(in_own_type(model), captions, noise.to(device), steps, batch=1)

            watch = Watch(student, sample, real, folder, settings.watch_every)
    result = train(student, loss, settings.loop(), folder, title=title, on_log=watch or _finite)
    if result.ended:
        kept = watch is not None and watch.restore()
        what = "these are the last good weights" if kept else "nothing was good yet"
        say(f"{title} ended early: {result.ended}; {what}. Lower the learning rate and train in a new folder")
    return result


def _finite(row: dict[str, float]) -> str | None:
    return None if row["loss"] < float("inf") else "the loss is not finite"


def gathered(student: nn.Module) -> dict[str, Tensor]:
    """Whole tensors of a student that may be sharded, on the CPU; every process has to ask."""
    return {k: whole(v.detach()).cpu() for k, v in student.state_dict().items()}
