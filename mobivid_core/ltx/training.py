"""Recovery and step distillation of a pruned student, through the one training loop: a GPU, many, or sharded (FSDP2).

Paper: KD-guided recovery after pruning, then distillation to four steps. Teacher and shards are read as needed: the
teacher stays frozen in its own type, the student trains in float32 under bfloat16 autocast, backward passes are
checkpointed. Distillation regresses the guided teacher's chords (`distill.regression`) on trajectories that are
computed once and kept on disk; `ltx.adversarial` has the stage after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mobivid_core.distill import regression
from mobivid_core.distill.trajectory import STUDENT_STEPS, student_sigmas
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import TIMESTEP_SCALE, flow_batch, flow_error
from mobivid_core.flow.sampling import sample_latents
from mobivid_core.ltx.alarms import Watch
from mobivid_core.ltx.shards import LatentShards
from mobivid_core.ltx.trajectories import TrajectoryFiles, in_own_type
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.recovery import matched_features
from mobivid_core.sensitivity.kd import kd_loss, with_data
from mobivid_core.train.distributed import SplitLoss, processes
from mobivid_core.train.loop import Player, TrainResult, TrainSettings, train

#: Clips that the alarms sample, and their Euler steps.
WATCHED, WATCH_STEPS = 4, 8


@dataclass(frozen=True)
class StudentSettings:
    """How a student is trained."""

    steps: int
    batch: int = 8  # clips a step, over all processes
    learning_rate: float = 1e-4  # peak rate of AdamW
    data_weight: float = 0.0  # weight of the clips' own velocities in recovery
    bf16: bool = False
    accumulate: int = 1  # micro-batches of each process
    sharded: bool = False  # FSDP2; alarms then look at the loss alone, since sampling would need every process
    watch_every: int = 1  # rows of the log between alarms' checks; 0 switches them off
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
    settings: StudentSettings, folder: Path,
) -> TrainResult:  # fmt: skip
    """Train a pruned float32 student in place to answer as its teacher does.

    The teacher is the plan's source, on the training device. `folder` gets the training state and last good weights.
    """
    matched = matched_features(plan)

    def draw(_: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        latents, text, mask = data.draw(settings.batch, generator)
        captions = Condition(text, mask, data.null_text, data.null_mask)
        return flow_batch(latents, captions, generator)

    def error(noisy: Tensor, timestep: Tensor, text: Tensor, mask: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(noisy.device.type, enabled=False):
            given = noisy.to(teacher.dtype), timestep, text.to(teacher.dtype), mask
            answer, states = teacher(*given, feature_blocks=matched.teacher, return_dict=False)
        own = student(noisy, timestep, text, mask, feature_blocks=matched.student, return_dict=False)
        own = own[0].float(), [s.float() for s in own[1]]
        terms = kd_loss(own, (answer.float(), [s.float() for s in states]))
        return with_data(terms, own[0], wanted, settings.data_weight)

    return run(student, SplitLoss(draw, error), data, settings, folder, "recovery", steps=WATCH_STEPS)


def distil(
    student: MobiVidTransformer3DModel, files: TrajectoryFiles, data: LatentShards, settings: StudentSettings,
    folder: Path,
) -> TrainResult:  # fmt: skip
    """Train a student in place to reach in four unguided steps what its guided teacher reaches in many.

    Arguments as for `recover`; `data` is used by the alarms alone.
    """
    loss = SplitLoss(lambda _, g: draw_chords(files, settings.batch, g), lambda *chords: flow_error(student, *chords))
    return run(student, loss, data, settings, folder, "distillation")


def draw_chords(files: TrajectoryFiles, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """(states (B, C, t, h, w), timesteps (B,), text, mask, chords (B, C, t, h, w)), levels evenly covered."""
    rows, levels = regression.draw_chords(batch, files, generator)
    sigmas = student_sigmas()
    path, text, mask = files.read(rows)
    states, ends = (path[torch.arange(batch), levels + later] for later in (0, 1))
    width = (sigmas[levels] - sigmas[levels + 1])[:, None, None, None, None]
    return states, TIMESTEP_SCALE * sigmas[levels], text, mask, (states - ends) / width


def run(
    student: MobiVidTransformer3DModel, loss: SplitLoss, data: LatentShards, settings: StudentSettings, folder: Path,
    title: str, steps: int = STUDENT_STEPS, opponent: Player | None = None,
) -> TrainResult:  # fmt: skip
    """Train a student in place under alarms; an alarm leaves the last good weights.

    The alarms compare samples of so many Euler `steps` with clips of `data`. An `opponent` is trained with the student
    (`train.loop`); the initial weights are then saved as the first good state.
    """
    student.requires_grad_(True).enable_gradient_checkpointing()
    watch = None
    if settings.watch_every and not settings.sharded:
        rows = torch.arange(min(WATCHED, len(data)))
        real, text, mask = data.batch(rows)
        if len(rows) < 2:
            print("one clip only: no alarms on samples, which compare clips")
        else:
            noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(settings.seed))

            def sample(model: nn.Module) -> Tensor:
                device = next(model.parameters()).device
                captions = Condition(text.to(device), mask.to(device))
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                    return sample_latents(in_own_type(model), captions, noise.to(device), steps, batch=1)

            watch = Watch(student, sample, real, folder / "good.safetensors", settings.watch_every)
            if opponent and not watch.good.is_file() and processes().is_main_process:
                watch.keep()
    result = train(student, loss, settings.loop(), folder, title=title, on_log=watch or _finite, opponent=opponent)
    if result.ended:
        kept = watch is not None and watch.restore()
        what = "these are the last good weights" if kept else "nothing was good yet"
        print(f"{title} ended early: {result.ended}; {what}. Lower the learning rate and train in a new folder")
    return result


def _finite(row: dict[str, float]) -> str | None:
    return None if row["loss"] < float("inf") else "the loss is not finite"
