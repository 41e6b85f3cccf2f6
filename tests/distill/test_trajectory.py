import pytest
import torch

from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.own_states import own_states
from mobivid_core.distill.regression import draw_chords, regression_loss, unroll
from mobivid_core.distill.trajectory import (
    collect_trajectories,
    round_steps,
    step_generator,
    student_sigmas,
    teacher_states,
)  # fmt: skip
from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.guidance import Guidance
from mobivid_core.flow.sampling import sample_latents, solver_path

SHAPE = (4, 2, 2, 2)


def noise(count, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_student_grid_is_the_textbook_grid():
    assert student_sigmas().tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_euler_is_exact_on_straight_paths():
    """v = noise - x0 is constant along a straight path, so any grid lands on x0."""
    x1, x0 = noise(3), noise(3, 1)
    end = solver_path(lambda x, sigma: x1 - x0, x1, student_sigmas(7))[-1]
    torch.testing.assert_close(end, x0, atol=1e-6, rtol=0)


def test_trajectory_ends_where_the_sampler_ends(teacher, condition):
    start = noise(len(condition))
    states = teacher_states(teacher, condition, start, steps=8, guidance=2.5)
    # other batches: float32 sums in another order
    ours = sample_latents(teacher, condition, start, 8, guidance=2.5, batch=5)
    torch.testing.assert_close(states[:, -1], ours, atol=1e-5, rtol=1e-5)
    assert torch.equal(states[:, 0], start)


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++"])
def test_solvers_converge_to_one_trajectory(teacher, condition, solver):
    """From 8 to 32 steps the squared error falls at every student level (first order: by 16 at best)."""
    start = noise(len(condition))
    truth = teacher_states(teacher, condition, start, steps=128, guidance=1.5)
    errors = [
        (teacher_states(teacher, condition, start, steps=n, guidance=1.5, solver=solver) - truth)
        .square()
        .mean((0, 2, 3, 4, 5))
        for n in (8, 32)
    ]
    assert (errors[1][1:] < errors[0][1:] / 4).all(), errors


def test_steps_that_miss_the_students_levels_are_refused(teacher, condition):
    with pytest.raises(ParameterError, match="multiple of 4.*got 6; take 8"):
        teacher_states(teacher, condition, noise(12), steps=6, guidance=1.0)
    assert [round_steps(n) for n in (1, 4, 6, 40)] == [4, 4, 8, 40]


def test_regression_loss_is_zero_for_a_teacher_of_four_unguided_steps(teacher, condition):
    """Then each chord is the teacher's own velocity: the loss is float noise (1e-9)."""
    found = collect_trajectories(teacher, condition, SHAPE, steps=4, guidance=1.0)
    rows, levels = torch.arange(12), torch.arange(12) % 4
    assert regression_loss(teacher, found, rows, levels) < 1e-9
    torch.testing.assert_close(unroll(teacher, condition, found.states[:, 0]), found.endpoints, atol=1e-5, rtol=1e-5)


def test_regression_loss_is_the_distance_to_the_next_state(student, trajectories):
    """Loss = 16 times the squared error of one student step, because a step is a quarter wide."""
    rows, levels = torch.arange(12), torch.arange(12) % 4
    loss = regression_loss(student, trajectories, rows, levels)
    x, sigma = trajectories.states[rows, levels], trajectories.sigmas[levels]
    v = student(x, 1000 * sigma, trajectories.condition.text[rows], trajectories.condition.mask[rows]).sample
    landed = x - 0.25 * v
    torch.testing.assert_close(loss, 16 * (landed - trajectories.states[rows, levels + 1]).square().mean())


def test_chords_cover_all_levels_evenly(trajectories):
    _, levels = draw_chords(32, trajectories, torch.Generator().manual_seed(0))
    assert torch.bincount(levels).tolist() == [8, 8, 8, 8]


def test_unroll_without_gradient_in_the_first_steps_gives_the_same_sample(student, condition):
    start = noise(12)
    full, last = unroll(student, condition, start), unroll(student, condition, start, gradient_steps=1)
    torch.testing.assert_close(full, last)
    assert last.requires_grad and full.requires_grad


def test_cache_resumes_and_notices_another_teacher(teacher, student, condition, tmp_path):
    ask = dict(steps=4, guidance=2.0, cache=tmp_path, chunk=5)
    first = collect_trajectories(teacher, condition, SHAPE, **ask)
    assert first.forwards == 12 * 4 * 2
    chunks = sorted(tmp_path.rglob("*.safetensors"))
    assert len(chunks) == 3
    chunks[1].write_bytes(chunks[1].read_bytes()[:40])  # a torn file
    chunks[2].unlink()
    again = collect_trajectories(teacher, condition, SHAPE, **ask)
    assert again.forwards == 7 * 4 * 2  # 5 clips of the torn chunk, 2 of the missing one
    assert torch.equal(first.states, again.states)
    assert collect_trajectories(student, condition, SHAPE, **ask).forwards == 12 * 4 * 2
    other = Condition(condition.text + 1, condition.mask, condition.null_text, condition.null_mask)
    assert collect_trajectories(teacher, other, SHAPE, **ask).forwards == 12 * 4 * 2


def test_streams_differ_by_salt_and_repeat():
    draw = lambda *salt: torch.rand(1, generator=step_generator(0, *salt)).item()  # noqa: E731
    assert draw(1, 2) == draw(1, 2) and len({draw(1, 2), draw(2, 1), draw(1), draw(1, 3)}) == 4


def test_guidance_in_an_interval_costs_and_counts_less(teacher, condition):
    """Counted evaluations are those that the model is asked for; a plain number is its `Guidance`."""
    asked = []
    handle = teacher.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    found = collect_trajectories(teacher, condition, SHAPE, steps=8, guidance=Guidance(2.0, 0.25, 0.75), seed=5)
    handle.remove()
    # sigma 1 and .875 are above, .25 and .125 below: four of eight steps are guided
    assert found.forwards == sum(asked) == len(condition) * 12
    plain, same = (
        collect_trajectories(teacher, condition, SHAPE, steps=8, guidance=g, seed=5) for g in (2.0, Guidance(2.0))
    )
    assert torch.equal(plain.states, same.states) and plain.forwards == same.forwards == len(condition) * 16
    assert not torch.allclose(plain.states[:, -1], found.states[:, -1])


def test_guidance_of_a_plain_number_finds_the_same_cache(teacher, condition, tmp_path):
    for guidance in (2.0, Guidance(2.0), 2):
        found = collect_trajectories(teacher, condition, SHAPE, steps=4, guidance=guidance, seed=5, cache=tmp_path)
    assert found.forwards == 0 and len(list(tmp_path.iterdir())) == 1


def test_costs_of_trajectories_and_own_states_are_what_the_teacher_is_asked_for(teacher, student, condition):
    costs = DistillCosts(student=0.0, teacher=1.0)
    for guidance in (1.0, 2.0, Guidance(2.0, 0.1, 0.6)):
        given = collect_trajectories(teacher, condition, SHAPE, steps=8, guidance=guidance, seed=5)
        assert costs.trajectories(len(given), 8, guidance) == given.forwards
        assert costs.own_states(len(given), guidance) == own_states(student, teacher, given).forwards
