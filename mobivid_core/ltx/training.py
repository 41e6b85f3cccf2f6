"""Recovery and step distillation of a pruned student, through the one training loop: a GPU, many, or sharded (FSDP2).

Paper: KD-guided recovery after pruning, then distillation to four steps. Teacher and shards are read as needed: the
teacher stays frozen in its own type, the student trains in float32 under bfloat16 autocast, backward passes are
checkpointed. Distillation regresses the guided teacher's chords (`distill.regression`) on trajectories that are
computed once and kept as files: at full size they do not fit the memory. `ltx.adversarial` has the stage after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mobivid_core.distill import regression
from mobivid_core.distill.trajectory import STUDENT_STEPS, step_generator, student_sigmas, teacher_states
from mobivid_core.errors import ParameterError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import TIMESTEP_SCALE, flow_batch, flow_error, predicted_velocity
from mobivid_core.flow.sampling import sample_latents
from mobivid_core.ltx.alarms import Watch
from mobivid_core.ltx.shards import LatentShards
from mobivid_core.models.counts import dit_flops
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.recovery import matched_features
from mobivid_core.sensitivity.kd import kd_loss
from mobivid_core.train.distributed import SplitLoss, processes
from mobivid_core.train.loop import Player, TrainResult, TrainSettings, train

#: Clips that the alarms sample, and their Euler steps in recovery.
WATCHED, WATCH_STEPS = 4, 8


@dataclass(frozen=True)
class Given:
    """What refit, recovery and distillation start from."""

    teacher: MobiVidTransformer3DModel  # frozen, where it is to compute
    student: MobiVidTransformer3DModel  # in float32; trained in place
    plan: PruningPlan  # of the student
    data: LatentShards
    history: dict  # of the student: the source, and the steps done since

    def flops(self, model: MobiVidTransformer3DModel) -> float:
        """FLOPs of one forward pass on one clip of the data."""
        return float(dit_flops(model.sizes, self.data.facts.shape[1:], self.data.facts.text_tokens)["total"])


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


def recover(given: Given, settings: StudentSettings, folder: Path) -> TrainResult:
    """Train a pruned student to answer as its teacher does; `folder` keeps the state and the last good weights."""
    teacher, student, data, matched = given.teacher, given.student, given.data, matched_features(given.plan)

    def draw(_: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        latents, text, mask = data.draw(settings.batch, generator)
        return flow_batch(latents, Condition(text, mask, data.null_text, data.null_mask), generator)

    def error(noisy: Tensor, timestep: Tensor, text: Tensor, mask: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(noisy.device.type, enabled=False):
            typed = noisy.to(teacher.dtype), timestep, text.to(teacher.dtype), mask
            answer, states = teacher(*typed, feature_blocks=tuple(matched.values()), return_dict=False)
        own = student(noisy, timestep, text, mask, feature_blocks=tuple(matched), return_dict=False)
        own = own[0].float(), [s.float() for s in own[1]]
        return kd_loss(own, (answer.float(), [s.float() for s in states]), wanted, settings.data_weight)

    return run(given, SplitLoss(draw, error), settings, folder, "recovery", steps=WATCH_STEPS)


@dataclass(frozen=True)
class TrajectoryFiles:
    """Trajectories on disk; stand in for `Trajectories` where the discriminator's real batches are drawn."""

    files: list[Path]  # one a caption: `states` (5, C, t, h, w), `text` (L, D), `mask` (L,)
    device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, 5, C, t, h, w), text (B, L, D), both float32, and mask (B, L)."""
        found = []
        for path in (self.files[row] for row in rows.tolist()):
            found.append(read_tensors(path))
            if not found[-1]:
                raise ParameterError(f"{path} is missing or torn; delete it and run again, it is made anew")
        states, text, mask = (torch.stack([f[name] for f in found]) for name in ("states", "text", "mask"))
        return states.float(), text.float(), mask

    def shown(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's samples (B, C, t, h, w) at `rows` with their text and mask."""
        states, text, mask = self.read(rows)
        return states[:, -1], text, mask


def trajectories(
    teacher: MobiVidTransformer3DModel, data: LatentShards, folder: Path, captions: int, steps: int, guidance: float,
    seed: int,
) -> TrajectoryFiles:  # fmt: skip
    """Compute the guided teacher's states at the student's noise levels, a file a caption, each once.

    The processes of a run share the work. Noise depends on (seed, caption) alone; `steps` are a multiple of four.
    """
    me, device = processes(), next(teacher.parameters()).device
    # Guidance evaluates the empty caption too: two evaluations a step.
    print(f"trajectories: {captions} captions x {steps} steps, {2 * captions * steps:,} evaluations of the teacher")
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
    return TrajectoryFiles(files)


def distil(given: Given, files: TrajectoryFiles, settings: StudentSettings, folder: Path) -> TrainResult:
    """Train a student to reach in four unguided steps what its guided teacher reaches in many."""
    loss = SplitLoss(
        lambda _, generator: draw_chords(files, settings.batch, generator),
        lambda *chords: flow_error(given.student, *chords),
    )
    return run(given, loss, settings, folder, "distillation")


def draw_chords(files: TrajectoryFiles, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """(states (B, C, t, h, w), timesteps (B,), text, mask, chords (B, C, t, h, w)), levels evenly covered."""
    rows, levels = regression.draw_chords(batch, files, generator)
    sigmas = student_sigmas()
    path, text, mask = files.read(rows)
    states, ends = (path[torch.arange(batch), levels + later] for later in (0, 1))
    width = (sigmas[levels] - sigmas[levels + 1])[:, None, None, None, None]
    return states, TIMESTEP_SCALE * sigmas[levels], text, mask, (states - ends) / width


def run(
    given: Given, loss: SplitLoss, settings: StudentSettings, folder: Path, title: str, steps: int = STUDENT_STEPS,
    opponent: Player | None = None,
) -> TrainResult:  # fmt: skip
    """Train the student under alarms; an alarm leaves the last good weights.

    The alarms compare samples of so many Euler `steps` with clips of the data. An `opponent` is trained with the
    student (`train.loop`); the initial weights are then saved as the first good state.
    """
    student, watch = given.student.requires_grad_(True), None
    student.enable_gradient_checkpointing()
    if settings.watch_every and not settings.sharded:
        rows = torch.arange(min(WATCHED, len(given.data)))
        real, text, mask = given.data.batch(rows)
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


def in_own_type(model: MobiVidTransformer3DModel) -> Callable[..., Tensor]:
    """A model as a velocity in float32, computed in the model's own type and device."""

    def velocity(x: Tensor, timestep: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        weight = next(model.parameters())
        given = x.to(weight.device, weight.dtype), timestep.to(weight.device), text.to(weight.device, weight.dtype)
        return predicted_velocity(model(*given, mask.to(weight.device))).float()

    return velocity
