# %% [markdown]
# # Exercises to notebook 02: flow matching, sampling, guidance
#
# Three exercises on [02_server_dit](../../notebooks/02_server_dit.ipynb). About 40 minutes.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from mobivid_core.teaching.checks import flow as check

# %% [markdown] tags=["exercise"]
# ## Exercise 1 · The straight path
#
# Write the point at noise level $\sigma$ on the straight path from data `x0` ($\sigma = 0$) to `noise` ($\sigma = 1$), and the
# velocity $dx_\sigma / d\sigma$ that the model is trained to predict.

# %% tags=["solution"]
def point(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """The point at sigma on the straight path from data to noise."""
    return (1 - sigma) * x0 + sigma * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """Derivative of the path with respect to sigma."""
    return noise - x0

# %% tags=["check"]
check.path(point, velocity)

# %% [markdown] tags=["instructor"]
# **Note.** Half of the literature has time the other way round (data at 1). The sign of the velocity and the direction of sampling
# change together; mixing two conventions is the classic bug. The model cannot know this velocity from `x_sigma` alone: it learns its
# average over all pairs that pass there.

# %% [markdown] tags=["exercise"]
# ## Exercise 2 · Euler, from noise to data
#
# Write the sampler: start at `noise` ($\sigma = 1$) and take `steps` equal steps to $\sigma = 0$. Each step follows the velocity at
# the point and the noise level where the step starts; `velocity(x, sigma)` gives it.
#
# The toy below has two bumps at -1.5 and 1 and an exact velocity. Predict: where do all samples land after **one** step?

# %%
from mobivid_core.evaluate.toy import LineMixture

toy = LineMixture()


def toy_velocity(x: Tensor, sigma: float) -> Tensor:
    return toy(x, torch.full((len(x),), 1000.0 * sigma))


plt.figure(figsize=(5, 2.5))
plt.hist(toy.draw(4000).tolist(), bins=80, color="0.7")
plt.title("the data: two bumps on a line")
plt.show()

# %% tags=["solution"]
def sample(velocity, noise: Tensor, steps: int) -> Tensor:
    """Samples from noise in equal Euler steps."""
    x = noise
    for i in range(steps):
        x = x - velocity(x, 1 - i / steps) / steps
    return x

# %% tags=["check"]
check.euler(sample, toy_velocity)

# %% [markdown] tags=["instructor"]
# **Note.** All samples land on the mean of the data, 0.4 (-1.5) + 0.6 (1) = 0: a place where there is no data. At sigma = 1 the noise
# says nothing, so the average velocity points at the mean. Let them plot `sample(toy_velocity, torch.randn(4000), n)` for
# n = 1, 2, 4, 40.

# %% [markdown] tags=["exercise"]
# ## Exercise 3 · Guidance
#
# Write the guided velocity: it starts from the prediction without the caption and moves `scale` times the way to the one with it.

# %% tags=["solution"]
def guided(with_text: Tensor, without: Tensor, scale: float) -> Tensor:
    """The velocity that a guided step follows."""
    return without + scale * (with_text - without)

# %% tags=["check"]
check.guidance(guided)

# %% [markdown] tags=["instructor"]
# **Note.** Two conventions are in use: this one, and `v_c + w (v_c - v_0)` with w = g - 1 (the original paper's). A "guidance of 3" is not
# the same in both. The check tells them apart. Ask what guidance does to diversity (it falls) and to cost (it doubles).
