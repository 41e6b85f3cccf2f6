import pytest
import torch
from torch import nn

from mobivid_core.distill.adversarial import (
    Contest,
    RealPool,
    approximate_r1,
    discriminator_loss,
    draw_noise,
    generator_loss,
)  # fmt: skip
from mobivid_core.distill.discriminator import KERNELS, TeacherDiscriminator, default_depths
from mobivid_core.distill.regression import unroll
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.errors import ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.path import interpolate

SHAPE = (4, 2, 2, 2)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def renoise(x, low, high, generator):
    sigma, noise = draw_noise(x, DistillSettings(1, renoise_low=low, renoise_high=high), generator)
    return interpolate(x, noise, sigma), sigma


def test_losses_at_known_logits():
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    assert discriminator_loss(zero, zero).item() == 2.0  # cannot tell
    assert discriminator_loss(one, -one).item() == 0.0  # separated by the margin
    assert generator_loss(one).item() == -1.0
    assert discriminator_loss(zero, zero, "relativistic").item() == pytest.approx(0.6931472)
    assert generator_loss(one, zero, "relativistic") < generator_loss(zero, zero, "relativistic")


def test_losses_refuse_what_they_cannot_do():
    with pytest.raises(ParameterError, match="unknown adversarial loss 'wgan'"):
        discriminator_loss(torch.zeros(1), torch.zeros(1), "wgan")
    with pytest.raises(ParameterError, match="pass `real`"):
        generator_loss(torch.zeros(1), kind="relativistic")


def test_approximate_r1_is_the_autograd_r1():
    """A smooth critic; 20,000 directions at s = 0.01: the estimate scatters by about 1 %, the bias is far smaller."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    point = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    exact = torch.stack(
        [torch.autograd.grad(logit, point, retain_graph=True)[0].square().sum() for logit in critic(point)[0]]
    ).mean()
    many = point.detach().expand(20_000, -1)
    with torch.no_grad():
        direction = torch.randn(many.shape, generator=rng())
        estimate = approximate_r1(critic, many, critic(many), direction, 0.01)
    assert estimate.item() == pytest.approx(exact.item(), rel=0.04)


def test_renoise_bounds_and_law():
    x = torch.ones(400, *SHAPE)
    noisy, sigma = renoise(x, 0.2, 0.6, rng())
    assert 0.2 <= sigma.min() and sigma.max() <= 0.6
    residual = (noisy - (1 - sigma.reshape(-1, 1, 1, 1, 1)) * x) / sigma.reshape(-1, 1, 1, 1, 1)
    assert residual.mean().abs() < 0.03 and abs(residual.std() - 1) < 0.03  # 12,800 normal draws: 3 sigma = 0.027


@pytest.mark.parametrize(("share", "synthetic"), [(0, 0), (0.25, 2), (0.5, 4), (1, 8)])
def test_share_of_teacher_samples_is_exact(dataset, trajectories, share, synthetic):
    real, text, mask = RealPool(dataset, trajectories, share).draw(8, rng())
    made = sum(any(torch.equal(row, e) for e in trajectories.endpoints) for row in real)
    own = sum(any(torch.equal(row, e) for e in dataset.latents) for row in real)
    assert (made, own) == (synthetic, 8 - synthetic)
    assert text.shape == (8, 5, 8) and mask.dtype == torch.bool


def test_share_outside_the_batch_is_refused(dataset, trajectories):
    with pytest.raises(ParameterError, match="0 to 1, got 1.5"):
        RealPool(dataset, trajectories, 1.5)


def test_default_depths_span_the_teacher():
    assert default_depths(14) == (2, 5, 8, 10) or len(default_depths(14)) == 4
    assert max(default_depths(28)) < 28 * 0.75 and default_depths(1) == (0,)


@pytest.mark.parametrize("kind", sorted(KERNELS))
def test_discriminator_separates_different_sets(teacher, condition, kind):
    """Constant latents against random ones: a hundred updates of the heads must tell them apart."""
    torch.manual_seed(0)
    heads = TeacherDiscriminator(teacher, (0, 2), width=16, kind=kind)
    optimizer = torch.optim.Adam(heads.parameters(), 5e-3)
    generator = rng(1)
    text, mask = condition.text, condition.mask

    def batch():
        real, s = renoise(torch.randn(12, *SHAPE, generator=generator), 0.1, 0.5, generator)
        fake, t = renoise(torch.full((12, *SHAPE), 1.0), 0.1, 0.5, generator)
        return heads(real, s, text, mask), heads(fake, t, text, mask)

    for _ in range(100):
        loss = discriminator_loss(*batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        real, fake = batch()
    assert ((real.mean(1) > 0).float().mean() + (fake.mean(1) < 0).float().mean()) / 2 > 0.9


def test_discriminator_keeps_the_teacher_out(teacher):
    heads = TeacherDiscriminator(teacher, (0, 1))
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    assert not any("_teacher" in name for name in heads.state_dict())
    heads.requires_grad_(True)
    assert not any(p.requires_grad for p in teacher.parameters())
    out = heads(
        torch.randn(2, *SHAPE), torch.tensor([0.1, 0.9]), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    )
    assert out.shape == (2, 2 * (8 + 1))
    out.sum().backward()
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_discriminator_refuses_depths_and_kinds(teacher):
    with pytest.raises(ParameterError, match=r"0\.\.2"):
        TeacherDiscriminator(teacher, (3,))
    with pytest.raises(ParameterError, match="spatiotemporal"):
        TeacherDiscriminator(teacher, kind="fourier")


def test_spatial_heads_do_not_mix_frames(teacher):
    """Changing frame 1's features leaves a spatial head's logits of frame 0 alone; a spatio-temporal head mixes."""
    torch.manual_seed(0)
    features = torch.randn(1, 8, 16)
    changed = features.clone()
    changed[:, 4:] += 1  # tokens of frame 1
    for kind, mixes in (("spatial", False), ("spatiotemporal", True)):
        head = TeacherDiscriminator(teacher, (0,), kind=kind).heads[0]
        a, b = (head(f, (2, 2, 2), torch.zeros(1, 9))[:, :4] for f in (features, changed))
        assert torch.equal(a, b) != mixes


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_student_loss_reaches_the_student_only(teacher, student, dataset, trajectories, loss):
    settings = DistillSettings(1, batch=4, adversarial_weight=1.0, loss=loss)
    contest = Contest(TeacherDiscriminator(teacher, (0, 2)), RealPool(dataset, trajectories), settings)
    contest.student_term(student, *contest.draw(rng())).backward()
    assert all(p.grad is None for p in contest.heads.parameters())
    assert all(p.requires_grad for p in contest.heads.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_clips_of_a_pair_share_caption_and_noise(teacher, student, dataset, trajectories, monkeypatch):
    """Whatever differs between the two inputs of the heads is (1 - sigma) times the difference of the clips."""
    seen, heads = [], TeacherDiscriminator(teacher, (0, 2))
    settings = DistillSettings(1, batch=4, adversarial_weight=1.0, loss="relativistic", r1_weight=0.0)
    contest, judged = Contest(heads, RealPool(dataset, trajectories), settings), heads.forward
    monkeypatch.setattr(heads, "forward", lambda *given: seen.append(given) or judged(*given))
    real, text, mask, start, sigma, noise, _ = drawn = contest.draw(rng())
    contest.heads_terms(student, *drawn)
    contest.student_term(student, *drawn)
    fake = unroll(student, Condition(text, mask), start)
    assert len(seen) == 4
    for clips, (noisy, *condition) in zip((real, fake, real, fake), seen, strict=True):
        torch.testing.assert_close(noisy, interpolate(clips, noise, sigma))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(condition, (sigma, text, mask), strict=True))
