import pytest
import torch

from mobivid_core.flow.toy import LineMixture


def test_one_bump_is_carried_exactly() -> None:
    """For one Gaussian the path is x_sigma = (1 - sigma) m + noise sqrt((1 - sigma)^2 s^2 + sigma^2)."""
    bump = LineMixture((2.0,), (0.5,), (1.0,))
    ends = bump.paths([-1.0, 0.0, 1.5], steps=4000)[-1]
    # Euler's error falls as 1 / steps: 4000 steps leave about 1e-3
    assert torch.allclose(ends, 2.0 + 0.5 * torch.tensor([-1.0, 0.0, 1.5]), atol=2e-3)


def test_the_velocity_is_what_regression_finds() -> None:
    toy = LineMixture()
    generator = torch.Generator().manual_seed(0)
    x0, noise, sigma = toy.draw(400_000, seed=1), torch.randn(400_000, generator=generator), 0.6
    x = (1 - sigma) * x0 + sigma * noise
    for point in (-1.0, 0.0, 0.8):
        near = (x - point).abs() < 0.02
        expected = toy(torch.tensor([point]), torch.tensor([1000 * sigma])).item()
        # about 6,000 samples of standard deviation 1.6: three standard errors are 0.06
        assert (noise - x0)[near].mean().item() == pytest.approx(expected, abs=0.08)


def test_one_step_gives_the_mean_and_many_steps_the_data() -> None:
    toy = LineMixture()
    mean = sum(w * m for w, m in zip(toy.weights, toy.means, strict=True))
    once = toy.sample(2000, steps=1)
    assert once.mean().item() == pytest.approx(mean, abs=1e-3) and once.std() < 1e-3
    many = toy.sample(2000, steps=40)
    assert (many < -0.25).float().mean().item() == pytest.approx(0.4, abs=0.05)  # two standard errors: 0.02
    assert ((many - 1.0).abs() < 0.75).float().mean() > 0.55
