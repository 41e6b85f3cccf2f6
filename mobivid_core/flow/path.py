"""Rectified-flow matching: the straight path from data to noise, and the loss that learns its velocity.

Paper: training objective of the server DiT (flow matching; that it is the straight path is assumed).
Throughout: x_sigma = (1 - sigma) x0 + sigma noise with sigma in [0, 1], and the model predicts v = noise - x0 from
x_sigma and the timestep 1000 sigma, as diffusers does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.flow.condition import Condition

#: What a timestep of 1 means in sigma: models are called with 1000 * sigma.
TIMESTEP_SCALE = 1000.0
#: Share of captions replaced by the empty one in training, so that guidance has an unconditional velocity.
DROP_TEXT = 0.1


def interpolate(x0: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """The point at `sigma`, (B,) or one number, on the path from data to noise: (1 - sigma) x0 + sigma noise."""
    sigma = per_sample(sigma, x0)
    return (1 - sigma) * x0 + sigma * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """Derivative of the path with respect to sigma: noise - x0, the model's target."""
    return noise - x0


def clean_estimate(x: Tensor, v: Tensor, sigma: Tensor | float) -> Tensor:
    """The x0 that a velocity implies: x_sigma - sigma v."""
    return x - per_sample(sigma, x) * v


def sample_sigmas(n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """(n,) float32 training times in (0, 1), logit-normal.

    The sigmoid of a standard normal favours the middle, where the velocity is hardest (Esser et al. 2024).
    """
    return torch.randn(n, generator=generator, device=generator.device).sigmoid().to(device)


def flow_loss(
    model: Callable, x0: Tensor, condition: Condition, generator: torch.Generator, drop_text: float = DROP_TEXT
) -> Tensor:
    """Mean squared error of `model(x, timestep, text, mask)` at random times, on a `flow_batch`; a scalar."""
    return flow_error(model, *flow_batch(x0, condition, generator, drop_text))


def flow_batch(
    x0: Tensor, condition: Condition, generator: torch.Generator, drop_text: float = DROP_TEXT
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All random draws of a training step on normalised latents (B, C, t, h, w), in the order of `flow_error`.

    A share `drop_text` of the captions is replaced by the empty one.

    Returns:
        Noisy latents (B, C, t, h, w), timesteps (B,), text (B, L, D), mask (B, L), and the velocity to predict.

    Raises:
        ParameterError: Captions are to be dropped, but there is no empty caption.
    """
    if drop_text > 0:
        condition = condition.dropped(drop_text, generator)
    sigma = sample_sigmas(len(x0), generator, x0.device)
    noise = normal(x0.shape, generator, x0.device)
    noisy, target = interpolate(x0, noise, sigma), velocity(x0, noise)
    return noisy, TIMESTEP_SCALE * sigma, condition.text, condition.mask, target


def flow_error(model: Callable, noisy: Tensor, timestep: Tensor, text: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity of a batch, or a part of one, from `flow_batch`."""
    return F.mse_loss(predicted_velocity(model(noisy, timestep, text, mask)), target)


def predicted_velocity(output: object) -> Tensor:
    """The velocity in a model's output, whichever of the three usual forms it has: tensor, tuple, or `.sample`."""
    if isinstance(output, Tensor):
        return output
    return output[0] if isinstance(output, tuple) else output.sample


def normal(shape: Sequence[int], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Standard normal numbers from a CPU generator's stream.

    On another device they are drawn there, from a generator seeded with the stream's next word: drawing on a processor
    would keep a GPU waiting. The numbers depend on the generator alone, but differ between kinds of device.
    """
    if torch.device(device).type == "cpu" or generator.device.type != "cpu":
        return torch.randn(tuple(shape), generator=generator, device=generator.device).to(device)
    word = int(torch.randint(2**62, (1,), generator=generator))
    return torch.randn(tuple(shape), generator=torch.Generator(device).manual_seed(word), device=device)


def per_sample(sigma: Tensor | float, like: Tensor) -> Tensor:
    """`sigma` shaped to broadcast over the samples of `like`."""
    sigma = torch.as_tensor(sigma, dtype=like.dtype, device=like.device)
    return sigma.reshape(-1, *([1] * (like.ndim - 1))) if sigma.ndim else sigma
