"""The guided teacher's trajectories as files, one a caption: computed once, shared by the processes of a run.

Paper: step distillation of the 40-step guided teacher. At full size they do not fit the memory, so batches are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from mobivid_core.distill.trajectory import step_generator, teacher_states
from mobivid_core.errors import ParameterError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import predicted_velocity
from mobivid_core.ltx.shards import LatentShards
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.train.distributed import processes


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


def in_own_type(model: MobiVidTransformer3DModel) -> Callable[..., Tensor]:
    """A model as a velocity in float32, computed in the model's own type and device."""

    def velocity(x: Tensor, timestep: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        weight = next(model.parameters())
        given = x.to(weight.device, weight.dtype), timestep.to(weight.device), text.to(weight.device, weight.dtype)
        return predicted_velocity(model(*given, mask.to(weight.device))).float()

    return velocity
