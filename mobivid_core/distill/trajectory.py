"""The guided teacher's trajectories, recorded at the student's four noise levels.

Paper: step distillation of the 40-step guided teacher (claim C23). From one noise and one caption the teacher
integrates dx/dsigma = v with classifier-free guidance. Its states at sigma = 1, .75, .5, .25 and 0 are the targets of
a four-step student without guidance.

Simplified: trajectories are computed once and cached, so the student sees a fixed set of noises; the teacher may
use fewer steps where forty are too expensive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from mobivid_core.errors import ParameterError
from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import guided_velocity, solver_path, textbook_grid, textbook_sigmas

if TYPE_CHECKING:
    from mobivid_core.data.latents import LatentDataset

#: Steps of the distilled student (claim C03).
STUDENT_STEPS = 4


def condition_of(dataset: LatentDataset, indices: Tensor, generator: torch.Generator | None = None) -> Condition:
    """Captions of the dataset's clips at `indices`; random wordings if a generator is given."""
    _, text, mask = dataset.batch(indices, generator)
    return Condition(text, mask, dataset.null_text.float(), dataset.null_mask)


@dataclass(frozen=True)
class Trajectories:
    """States along trajectories, and where the guided teacher takes each within one of the student's steps."""

    states: Tensor  # (N, S + 1, C, t, h, w); states[:, 0] is the noise, states[:, S] the sample
    sigmas: Tensor  # (S + 1,) noise levels of the states, 1 down to 0
    condition: Condition
    teacher_steps: int
    guidance: float | Guidance  # of the teacher
    # Teacher evaluations spent in this call, one per clip, step and guidance half (0 if all were cached)
    forwards: int = 0
    # (N, S, C, t, h, w) where the teacher's step from each state ends; None where it ends in the next state, since
    # the states are the teacher's own
    ends: Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    @property
    def targets(self) -> Tensor:
        """(N, S, C, t, h, w) where the teacher's step from each state ends."""
        return self.states[:, 1:] if self.ends is None else self.ends

    @property
    def endpoints(self) -> Tensor:
        """(N, C, t, h, w) the teacher's samples."""
        return self.targets[:, -1]

    @property
    def device(self) -> torch.device:
        """Where the states lie."""
        return self.states.device

    def shown(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's samples at `rows` with their text (B, L, D) and mask (B, L)."""
        return self.endpoints[rows], self.condition.text[rows], self.condition.mask[rows]

    def take(self, rows: Tensor) -> Trajectories:
        """The trajectories at `rows`."""
        ends = None if self.ends is None else self.ends[rows]
        return replace(self, states=self.states[rows], ends=ends, condition=self.condition.take(rows))

    def to(self, device: str | torch.device) -> Trajectories:
        """All tensors on `device`."""
        ends = None if self.ends is None else self.ends.to(device)
        moved = {"states": self.states.to(device), "sigmas": self.sigmas.to(device), "ends": ends}
        return replace(self, **moved, condition=self.condition.to(device))


def student_sigmas(steps: int = STUDENT_STEPS) -> Tensor:
    """(steps + 1,) noise levels of the student: the textbook grid and the final 0."""
    return textbook_grid(steps)


def step_generator(seed: int, *salt: int) -> torch.Generator:
    """An independent random stream for (seed, salt...): resuming at a step needs no stored random state."""
    word = int(np.random.SeedSequence([seed, *salt]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(word >> 1)


@torch.no_grad()
def teacher_states(
    teacher: nn.Module,  # velocity model
    condition: Condition,  # B captions
    noise: Tensor,  # where to start
    *,
    steps: int,  # teacher steps, a multiple of `STUDENT_STEPS`, so that it passes the student's noise levels
    guidance: float | Guidance,  # guidance scale, or a `Guidance`
    solver: str = "euler",  # "euler", "unipc" or "dpm++"
) -> Tensor:
    """Guided trajectory (B, 5, C, t, h, w) from each noise (B, C, t, h, w), at the student's noise levels.

    Raises:
        ParameterError: `steps` is not a positive multiple of 4.
    """
    if steps <= 0 or steps % STUDENT_STEPS:
        raise ParameterError(
            f"the teacher's steps must be a multiple of {STUDENT_STEPS} so that it passes the student's noise levels, "
            f"got {steps}; take {round_steps(max(steps, 1))}"
        )
    path = solver_path(guided_velocity(teacher, condition, guidance), noise, student_sigmas(steps), solver)
    return torch.stack(path[:: steps // STUDENT_STEPS], dim=1)


def round_steps(steps: int) -> int:
    """The next multiple of the student's steps."""
    return STUDENT_STEPS * -(-steps // STUDENT_STEPS)


def collect_trajectories(
    teacher: nn.Module,  # velocity model on the device to compute on
    condition: Condition,  # N captions
    shape: tuple[int, int, int, int],  # (C, t, h, w) of one latent
    *,
    steps: int,
    guidance: float | Guidance,
    solver: str = "euler",
    seed: int = 0,  # the noise of chunk i comes from (seed, i) alone
    # Folder of finished chunks; an interrupted call continues after the last one, a call for more captions
    # computes the new ones only. None keeps nothing.
    cache: Path | None = None,
    chunk: int = 64,  # clips computed together; part of what the cache is keyed by
    progress: bool = False,
) -> Trajectories:
    """Trajectories (on the CPU) for all captions, in chunks that a later call finds again.

    Raises:
        RunError: The disk is full; finished chunks are kept.
    """
    device = next(teacher.parameters()).device
    settings = json.dumps([list(shape), steps, as_guidance(guidance).key, solver, seed, chunk])
    key = tensors_digest(settings, (v for _, v in sorted(teacher.state_dict().items())))
    evaluations = as_guidance(guidance).evaluations(textbook_sigmas(steps))
    states, forwards = [], 0
    for i in tqdm(range(-(-len(condition) // chunk)), desc="teacher trajectories", disable=not progress):
        part = condition.take(slice(i * chunk, (i + 1) * chunk))
        captions = tensors_digest("captions", part.tensors)
        path = None if cache is None else Path(cache) / key / f"{i:05d}-{captions}.safetensors"
        kept = read_tensors(path)
        if kept and "states" in kept:
            done = kept["states"]
        else:
            noise = torch.randn((len(part), *shape), generator=step_generator(seed, i)).to(device)
            done = teacher_states(teacher, part.to(device), noise, steps=steps, guidance=guidance, solver=solver).cpu()
            forwards += len(part) * evaluations
            if path:
                write_bytes(path, save({"states": done.contiguous()}))
        states.append(done)
    return Trajectories(torch.cat(states), student_sigmas(), condition, steps, guidance, forwards)


def tensors_digest(word: str, tensors: Iterable[Tensor]) -> str:
    """Short hash of a word and tensors."""
    digest = hashlib.sha256(word.encode())
    for value in tensors:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
