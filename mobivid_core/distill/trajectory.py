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
from collections.abc import Callable, Iterable
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

    def take(self, rows: Tensor | slice) -> Trajectories:
        """The trajectories at `rows`."""
        ends = None if self.ends is None else self.ends[rows]
        return replace(self, states=self.states[rows], ends=ends, condition=self.condition.take(rows))

    def to(self, device: str | torch.device) -> Trajectories:
        """All tensors on `device`."""
        states, ends = self.states.to(device), None if self.ends is None else self.ends.to(device)
        condition = self.condition.to(device)
        return replace(self, states=states, ends=ends, sigmas=self.sigmas.to(device), condition=condition)


def student_sigmas(steps: int = STUDENT_STEPS) -> Tensor:
    """(steps + 1,) noise levels of the student: the textbook grid and the final 0."""
    return textbook_grid(steps)


def step_generator(seed: int, *salt: int) -> torch.Generator:
    """An independent random stream for (seed, salt...): resuming at a step needs no stored random state."""
    word = int(np.random.SeedSequence([seed, *salt]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(word >> 1)


@torch.no_grad()
def teacher_states(
    teacher: nn.Module, condition: Condition, noise: Tensor, *, steps: int, guidance: float | Guidance,
    solver: str = "euler",
) -> Tensor:  # fmt: skip
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


def in_chunks(
    given: Condition | Trajectories, chunk: int, make: Callable[..., dict[str, Tensor]],
    file_of: Callable[..., Path] | None, title: str, progress: bool,
) -> tuple[dict[str, Tensor], int]:  # fmt: skip
    """What `make(number, part)` computes of `given`, `chunk` rows at a time (on the CPU); how many rows were computed.

    Finished chunks are kept in the files that `file_of(number, part)` names, if any, also where the disk is full (a
    RunError); a later call finds them again.
    """
    parts, made = [], 0
    for number in tqdm(range(-(-len(given) // chunk)), desc=title, disable=not progress):
        part = given.take(slice(number * chunk, (number + 1) * chunk))
        path = file_of(number, part) if file_of else None
        found = read_tensors(path)
        if not found:
            found = {name: value.cpu().contiguous() for name, value in make(number, part).items()}
            made += len(part)
            if path:
                write_bytes(path, save(found))
        parts.append(found)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, made


def collect_trajectories(
    teacher: nn.Module,  # velocity model on the device to compute on
    condition: Condition,  # N captions
    shape: tuple[int, int, int, int],  # (C, t, h, w) of one latent
    *,
    steps: int,
    guidance: float | Guidance,
    solver: str = "euler",
    seed: int = 0,  # the noise of chunk i comes from (seed, i) alone
    cache: Path | None = None,  # folder of finished chunks; a call for more captions computes the new ones only
    chunk: int = 64,  # clips computed together; part of what the cache is keyed by
    progress: bool = False,
) -> Trajectories:
    """Trajectories (on the CPU) for all captions, in chunks that a later call finds again."""
    device = next(teacher.parameters()).device
    settings = json.dumps([list(shape), steps, as_guidance(guidance).key, solver, seed, chunk])
    key = tensors_digest(settings, (v for _, v in sorted(teacher.state_dict().items()))) if cache else ""

    def walk(number: int, part: Condition) -> dict[str, Tensor]:
        noise = torch.randn((len(part), *shape), generator=step_generator(seed, number)).to(device)
        states = teacher_states(teacher, part.to(device), noise, steps=steps, guidance=guidance, solver=solver)
        return {"states": states}

    def file_of(number: int, part: Condition) -> Path:
        return cache / key / f"{number:05d}-{tensors_digest('captions', part.tensors)}.safetensors"

    found, made = in_chunks(condition, chunk, walk, file_of if cache else None, "teacher trajectories", progress)
    forwards = made * as_guidance(guidance).evaluations(textbook_sigmas(steps))
    return Trajectories(found["states"], student_sigmas(), condition, steps, guidance, forwards)


def tensors_digest(word: str, tensors: Iterable[Tensor]) -> str:
    """Short hash of a word and tensors."""
    digest = hashlib.sha256(word.encode())
    for value in tensors:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
