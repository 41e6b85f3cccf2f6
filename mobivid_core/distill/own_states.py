"""Training on the student's own states: at each state the guided teacher supplies the target of the step.

Paper: not part of it. A student trained on the teacher's path never sees states with its own errors, from which its
steps start in use. Here the student takes its four steps; at each state the guided teacher supplies the target.
Source of the idea: dataset aggregation for imitation (Ross et al. 2011, arXiv 1011.0686), known in step distillation
as backward distillation (Imagine Flash, arXiv 2405.05224).

Simplified: the states are renewed in rounds, not at every update, so that each teacher step serves several updates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import STUDENT_STEPS, Trajectories, in_chunks, tensors_digest
from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.sampling import Velocity, guided_velocity, solver_path, textbook_sigmas

#: Midpoint steps of the teacher for one of the student's, two evaluations each. One is too few: see CHANGELOG, "Tried".
SEGMENT_STEPS = 2


@dataclass(frozen=True)
class OwnRounds:
    """Rounds of training on the student's own states."""

    rounds: int  # how often the states are renewed
    # Trajectories whose noises and captions a round takes: the next ones in each; earlier rounds' chords stay
    clips: int
    settings: DistillSettings  # training of one round; its seed moves on from round to round
    first: int = 0  # the trajectory that the first round begins with: those before it were used in an earlier training
    # Further trajectories whose teacher chords each round adds: the first chord, from noise, needs many samples,
    # and they are already there
    forced: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.clips < 1:
            raise ParameterError(f"own states need at least one round and one clip, got {self.rounds} and {self.clips}")
        if self.first < 0 or self.forced < 0:
            raise ParameterError(f"trajectories are counted from 0, got first {self.first} and forced {self.forced}")

    def begin(self, number: int) -> int:
        """The trajectory that round `number`, from 0, begins with."""
        return self.first + number * (self.clips + self.forced)

    def settings_of(self, number: int) -> DistillSettings:
        """Settings of round `number`, from 0."""
        return replace(self.settings, seed=self.settings.seed + number)


def midpoint(velocity: Velocity, x: Tensor, sigma: float, following: float, steps: int = SEGMENT_STEPS) -> Tensor:
    """Equal steps of the midpoint method from noise level `sigma` to `following` (shapes as `x`)."""
    half = (following - sigma) / steps / 2
    for _ in range(steps):
        x = x + 2 * half * velocity(x + half * velocity(x, sigma), sigma + half)
        sigma += 2 * half
    return x


@torch.no_grad()
def own_states(student: nn.Module, teacher: nn.Module, given: Trajectories) -> Trajectories:
    """The student's states from given noises, and where the guided teacher would have gone from each.

    The student walks unguided from `given.states[:, 0]`; the teacher's first chord is taken as it is.
    """
    condition, sigmas = given.condition, given.sigmas.tolist()
    path = solver_path(guided_velocity(student, condition), given.states[:, 0], given.sigmas)
    guided = guided_velocity(teacher, condition, given.guidance)
    ends = [given.targets[:, 0]]
    ends += [midpoint(guided, path[i], sigmas[i], sigmas[i + 1]) for i in range(1, STUDENT_STEPS)]
    forwards = len(given) * shown_evaluations(given.guidance)
    return replace(given, states=torch.stack(path, dim=1), ends=torch.stack(ends, dim=1), forwards=forwards)


def shown_evaluations(guidance: float | Guidance) -> int:
    """Teacher evaluations of a clip's targets, of which the first chord is there already."""
    finer = 2 * SEGMENT_STEPS  # the midpoint method evaluates at equal steps
    return as_guidance(guidance).evaluations(textbook_sigmas(STUDENT_STEPS * finer)[finer:])


def collect_own_states(
    student: nn.Module,  # on the device to compute on
    teacher: nn.Module,  # on the same device
    given: Trajectories,  # the teacher's trajectories, on the CPU
    clips: int,  # how many; after the last one the first ones follow
    *,
    first: int = 0,  # where to begin
    cache: Path | None = None,  # folder of finished chunks
    chunk: int = 64,  # clips computed together
    progress: bool = False,
) -> Trajectories:
    """`own_states` of `clips` trajectories of `given` from the `first` on, in chunks that a later call finds again.

    Raises:
        ParameterError: More clips than trajectories.
    """
    if clips > len(given):
        raise ParameterError(f"{clips} clips of own states need as many trajectories, there are {len(given)}")
    device, chosen = next(student.parameters()).device, given.take(in_order(given, first, clips))
    key = _key(student, teacher, chosen, chunk) if cache else ""

    def walk(_: int, part: Trajectories) -> dict[str, Tensor]:
        own = own_states(student, teacher, part.to(device))
        return {"states": own.states, "ends": own.ends}

    file_of = (lambda number, _: cache / key / f"{number:05d}.safetensors") if cache else None
    found, made = in_chunks(chosen, chunk, walk, file_of, "own states", progress)
    return replace(chosen, **found, forwards=made * shown_evaluations(given.guidance))


def in_order(given: Trajectories, first: int, count: int) -> Tensor:
    """(count,) rows of `given` from the `first` on; after the last one the first ones follow."""
    return torch.arange(first, first + count) % len(given)


def joined(parts: list[Trajectories]) -> Trajectories:
    """All chords of several sets of trajectories, which share noise levels and guidance."""
    first = parts[0]
    states, ends = (torch.cat([getattr(p, name) for p in parts]) for name in ("states", "targets"))
    text, mask = (torch.cat([getattr(p.condition, name) for p in parts]) for name in ("text", "mask"))
    condition = replace(first.condition, text=text, mask=mask)
    return replace(first, states=states, ends=ends, condition=condition, forwards=sum(p.forwards for p in parts))


def _key(student: nn.Module, teacher: nn.Module, given: Trajectories, chunk: int) -> str:
    """Short hash of everything that the chunks of own states depend on."""
    weights = (*student.state_dict().values(), *teacher.state_dict().values())
    settings = repr((as_guidance(given.guidance).key, SEGMENT_STEPS, chunk))
    starts = given.sigmas, given.states[:, 0], given.targets[:, 0]
    return tensors_digest(settings, (*weights, *given.condition.tensors, *starts))
