"""The losses beside regression and adversarial training, and arms at equal compute."""

import copy

import pytest
import torch
from torch import nn

from mobivid_core.distill.alternatives import (
    Matching,
    consistency_loss,
    consistency_sample,
    make_matching,
    matching_loss,
)
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.regression import regression_loss
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trainer import Distiller
from mobivid_core.distill.trajectory import Trajectories
from mobivid_core.errors import ParameterError
from mobivid_core.studies import distillation_arms as arms
from mobivid_core.studies.distillation_arms import ARMS, Stage, arm_stages, run_arm

ANCHOR = DistillSettings(1, batch=4, rate=3e-3, rate_warmup=1)
SECOND = DistillSettings(1, batch=4, adversarial_weight=0.1, discriminator_warmup=2, gradient_steps=2)
COSTS = DistillCosts(student=1e9, teacher=2e9)


class Straight(nn.Module):
    """A student that knows where each path ends: v = (x - end) / sigma."""

    def __init__(self, ends):
        super().__init__()
        self.ends = ends
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, timestep, text, mask):
        sigma = (timestep / 1000.0).clamp(min=1e-6).reshape(-1, 1, 1, 1, 1)
        return type("Out", (), {"sample": (x - self.ends[: len(x)]) / sigma + self.weight})


def test_consistency_is_zero_where_all_states_lead_to_one_sample(trajectories):
    """Straight paths: every state of a row leads to its end, so neither the last level nor the others have an error."""
    rows = torch.arange(len(trajectories))
    student = Straight(trajectories.endpoints)
    for level in range(4):
        levels = torch.full((len(rows),), level)
        assert consistency_loss(student, trajectories, rows, levels).item() < 1e-8
    with torch.no_grad():
        student.weight.fill_(0.5)  # adds 0.5 to v at every level: f moves by -0.5 sigma, so the error is known
    for level, sigma, lower in ((0, 1.0, 0.75), (3, 0.25, 0.0)):
        expected = (0.5 - 0.5 * lower / sigma) ** 2
        found = consistency_loss(student, trajectories, rows, torch.full((len(rows),), level))
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_consistency_meets_regression_at_the_last_level(student, trajectories):
    rows, levels = torch.arange(8), torch.full((8,), 3)
    torch.testing.assert_close(
        consistency_loss(student, trajectories, rows, levels), regression_loss(student, trajectories, rows, levels)
    )


def test_consistency_sampler_returns_the_known_end_and_depends_on_its_seed(student, trajectories, condition):
    known = consistency_sample(Straight(trajectories.endpoints), condition, trajectories.states[:, 0])
    torch.testing.assert_close(known, trajectories.endpoints, atol=1e-4, rtol=1e-4)
    noise = trajectories.states[:, 0]
    one, same, other = (consistency_sample(student, condition, noise, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_matching_gradient_is_the_scaled_difference():
    g = torch.Generator().manual_seed(0)
    samples, teacher_clean, own = (torch.randn(3, 4, 2, generator=g) for _ in range(3))
    samples.requires_grad_(True)
    matching_loss(samples, teacher_clean, own).backward()
    away = (samples - teacher_clean).abs().mean(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(
        samples.grad, ((own - teacher_clean) / away / samples.numel()).detach(), rtol=1e-4, atol=1e-7
    )


def test_matching_agrees_with_modelopt():
    losses = pytest.importorskip("modelopt.torch.fastgen.losses")
    g = torch.Generator().manual_seed(1)
    samples, teacher_clean, own = (torch.randn(5, 4, 2, 2, 2, generator=g) for _ in range(3))
    gradients = []
    for loss in (matching_loss, losses.vsd_loss):
        x = samples.clone().requires_grad_(True)
        value = loss(x, teacher_clean, own)
        value.backward()
        gradients.append((value.detach(), x.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_network_loss_agrees_with_modelopt(teacher, student, trajectories):
    """Our target (noisy - x0) / sigma is the library's flow velocity eps - x0."""
    losses = pytest.importorskip("modelopt.torch.fastgen.losses")
    g = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(5, 4, 2, 2, 2, generator=g), torch.randn(5, 4, 2, 2, 2, generator=g)
    sigma, predicted = torch.rand(5, generator=g).clamp(min=0.05), torch.randn(5, 4, 2, 2, 2, generator=g)
    scale = sigma.reshape(-1, 1, 1, 1, 1)
    ours = ((predicted - ((1 - scale) * x0 + scale * noise - x0) / scale) ** 2).mean()
    torch.testing.assert_close(ours, losses.dsm_loss("flow", predicted, x0=x0, eps=noise), rtol=1e-4, atol=1e-5)


def test_adversarial_pieces_agree_with_modelopt():
    """Softplus losses with pairs: the relativistic loss of (0, x) is the library's generator loss of x."""
    losses = pytest.importorskip("modelopt.torch.fastgen.losses")
    from mobivid_core.distill.adversarial import approximate_r1, generator_loss

    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        generator_loss(logits, torch.zeros_like(logits), "relativistic"), losses.gan_gen_loss(logits)
    )
    x, scale = torch.randn(6, 3), 0.05

    def critic(x):
        return x.square()

    ours = approximate_r1(critic, x, critic(x), torch.randn(x.shape, generator=torch.Generator().manual_seed(3)), scale)
    moved = x + scale * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours * scale**2, losses.r1_loss(critic(x), critic(moved)))


def test_matching_is_silent_when_student_and_teacher_agree(teacher, trajectories):
    """An unguided teacher against its own copy: no direction, whatever the samples are."""
    unguided = Trajectories(trajectories.states, trajectories.sigmas, trajectories.condition, 8, 1.0)
    student = copy.deepcopy(teacher).requires_grad_(True)
    term = make_matching(teacher, unguided, SECOND)
    term.student_term(student, *term.draw(torch.Generator().manual_seed(0))).backward()
    assert max(p.grad.abs().max() for p in student.parameters() if p.grad is not None) < 1e-6
    moved = Matching(teacher, copy.deepcopy(teacher), unguided, SECOND)
    with torch.no_grad():
        for p in moved.heads.parameters():
            p.add_(0.05)
    student.zero_grad()
    moved.student_term(student, *moved.draw(torch.Generator().manual_seed(0))).backward()
    assert max(p.grad.abs().max() for p in student.parameters() if p.grad is not None) > 1e-5


def test_matching_network_learns_the_students_samples_and_the_teacher_stays(teacher, student, trajectories):
    settings = DistillSettings(12, batch=8, adversarial_weight=0.1, discriminator_rate=3e-3, discriminator_warmup=40)
    term, before = make_matching(teacher, trajectories, settings), copy.deepcopy(teacher.state_dict())

    def follows():
        with torch.no_grad():
            return term.heads_terms(student, *term.draw(torch.Generator().manual_seed(9)))["loss"].item()

    untrained = follows()
    distiller = Distiller(student, trajectories, settings, contest=term)
    distiller.run()
    assert follows() < 0.9 * untrained
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert distiller.log[-1]["adversarial"] > 0


@pytest.mark.parametrize("arm", ARMS)
def test_arms_fill_the_budget_and_train(arm, teacher, student, dataset, trajectories):
    budget = 3e12
    stages = arm_stages(arm, budget, COSTS, ANCHOR, SECOND)
    spent = sum(stage.flops(COSTS) for stage in stages)
    one = [Stage(stage.settings, stage.term, stage.consistent).flops(COSTS) / stage.settings.steps for stage in stages]
    assert budget - 1.5 * sum(one) <= spent <= budget
    short = [
        Stage(DistillSettings(**{**vars(x.settings), "steps": 2, "discriminator_warmup": 1}), x.term, x.consistent)
        for x in stages
    ]
    result = run_arm(student, teacher, dataset, trajectories, short, COSTS)
    assert result.updates == 2 * len(stages) and result.recoveries == 0
    changed = [not torch.equal(a, b) for a, b in zip(result.student.parameters(), student.parameters(), strict=True)]
    assert any(changed)


def test_arms_refuse_what_they_cannot_do():
    with pytest.raises(ParameterError, match="unknown arm 'magic'.*consistency"):
        arm_stages("magic", 1e12, COSTS, ANCHOR, SECOND)
    with pytest.raises(ParameterError, match="pays no update.*give more"):
        arm_stages(arms.BOTH, 1e9, COSTS, ANCHOR, SECOND)
