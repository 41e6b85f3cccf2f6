"""Training on the student's own states: what the chords are, that they come back, and what they mend."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mobivid_core.distill.own_states import OwnRounds, collect_own_states, joined, midpoint, own_states
from mobivid_core.distill.recipe import Recipe, distill
from mobivid_core.distill.regression import chord_targets, regression_loss
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.errors import ParameterError
from mobivid_core.flow.sampling import guided_velocity


def test_midpoint_is_exact_for_a_velocity_linear_in_the_noise_level() -> None:
    for steps in (1, 3):
        end = midpoint(lambda x, sigma: torch.full_like(x, 2 * sigma), torch.zeros(2, 1), 1.0, 0.25, steps)
        torch.testing.assert_close(end, torch.full((2, 1), 0.25**2 - 1.0))


def test_midpoint_gets_closer_by_the_square_of_its_steps() -> None:
    """dx/dsigma = x from 1 to 0 is a factor 1/e: a method of second order loses a quarter of the error per doubling."""
    one, two, four = (
        abs(float(midpoint(lambda x, _: x, torch.ones(1, dtype=torch.float64), 1.0, 0.0, n)) - math.exp(-1))
        for n in (4, 8, 16)
    )
    assert 3.5 < one / two < 4.5 and 3.5 < two / four < 4.5


def test_states_are_the_students_and_ends_the_teachers(student, teacher, trajectories) -> None:
    own = own_states(student, teacher, trajectories)
    torch.testing.assert_close(own.states[:, 0], trajectories.states[:, 0])
    torch.testing.assert_close(own.targets[:, 0], trajectories.states[:, 1])  # from noise, both stand at one place
    velocity = guided_velocity(student, trajectories.condition, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(own.states[:, 2], own.states[:, 1] - 0.25 * velocity(own.states[:, 1], 0.75))
        guided = guided_velocity(teacher, trajectories.condition, trajectories.guidance)
        torch.testing.assert_close(own.targets[:, 2], midpoint(guided, own.states[:, 2], 0.5, 0.25))
    assert own.forwards == len(trajectories) * 3 * 4 * 2
    rows, levels = torch.tensor([1, 0]), torch.tensor([3, 1])
    x, _, target = chord_targets(own, rows, levels)
    torch.testing.assert_close(x - 0.25 * target, own.ends[rows, levels])


def test_a_student_on_the_teachers_path_meets_the_same_chords(teacher, trajectories) -> None:
    """With a constant velocity, own states and teacher's states are one path: the loss there must be nothing."""

    class Still(torch.nn.Module):
        def forward(self, x, timestep, text, mask):
            return type("Out", (), {"sample": torch.ones_like(x)})

    path = torch.stack([trajectories.states[:, 0] - (1 - s) for s in trajectories.sigmas.tolist()], dim=1)
    own = own_states(Still(), Still(), replace(trajectories, states=path))
    torch.testing.assert_close(own.ends, own.states[:, 1:])
    rows = torch.arange(len(own))
    assert regression_loss(Still(), own, rows, rows % 4) < 1e-10


def test_own_states_come_back_from_their_cache_and_not_for_another_student(student, teacher, trajectories, tmp_path):
    def collect(model):
        return collect_own_states(model, teacher, trajectories, 6, cache=tmp_path, chunk=4)

    first, again = collect(student), collect(student)
    assert first.forwards > 0 and again.forwards == 0 and len(again) == 6
    torch.testing.assert_close(first.ends, again.ends)
    with torch.no_grad():
        next(student.parameters()).add_(1.0)
    assert collect(student).forwards == first.forwards
    other = collect_own_states(student, teacher, trajectories, 6, cache=tmp_path, chunk=3)  # its chunks are others
    assert other.forwards == first.forwards and len(other) == 6
    with pytest.raises(ParameterError, match="need as many trajectories"):
        collect_own_states(student, teacher, trajectories, len(trajectories) + 1)
    last = collect_own_states(student, teacher, trajectories, 2, first=len(trajectories) - 1)
    torch.testing.assert_close(last.states[:, 0], trajectories.states[[-1, 0], 0])


def test_joined_trajectories_keep_every_chord(student, teacher, trajectories) -> None:
    own = own_states(student, teacher, trajectories)
    both = joined([trajectories, own])
    assert len(both) == 2 * len(trajectories) == len(both.condition)
    torch.testing.assert_close(both.targets[: len(trajectories)], trajectories.states[:, 1:])
    torch.testing.assert_close(both.targets[len(trajectories) :], own.ends)
    torch.testing.assert_close(both.take(torch.tensor([0, -1])).targets[1], own.ends[-1])


def test_rounds_lower_the_loss_where_the_student_stands(student, teacher, dataset, trajectories, tmp_path) -> None:
    stage = DistillSettings(40, batch=8, rate=3e-3, rate_warmup=1, snapshot_every=20)
    recipe = Recipe(len(trajectories), 8, "unipc", trajectories.guidance, stage, None)
    forced = distill(student, teacher, dataset, recipe, folder=tmp_path)
    rounds = replace(recipe, own=OwnRounds(2, 8, stage, forced=4))
    assert (rounds.own.begin(0), rounds.own.begin(1)) == (0, 12)
    done = distill(student, teacher, dataset, rounds, folder=tmp_path)
    assert done.costs["stage"].tolist()[1:] == [
        "regression",
        "own states 1, gathered",
        "own states 1",
        "own states 2, gathered",
        "own states 2",
    ]
    assert (done.costs["TFLOP (counted)"] > 0).all() and (done.log["stage"] == "own states 2").sum() == 40
    rows = torch.arange(8).repeat(3)
    levels = torch.arange(1, 4).repeat_interleave(8)

    def at_home(model) -> float:
        """Mean squared error from the model's own states."""
        return float(regression_loss(model, own_states(model, teacher, trajectories), rows, levels))

    assert at_home(done.student) < 0.9 * at_home(forced.student)
    again = distill(student, teacher, dataset, rounds, folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.student.parameters(), done.student.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [(0, 4), (1, 0)])
def test_rounds_without_work_are_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ParameterError, match="at least one round and one clip"):
        OwnRounds(*wrong, DistillSettings(1))
    for name in ("first", "forced"):
        with pytest.raises(ParameterError, match="counted from 0"):
            OwnRounds(1, 1, DistillSettings(1), **{name: -1})
    with pytest.raises(ParameterError, match="at least one step"):
        DistillSettings(0)
