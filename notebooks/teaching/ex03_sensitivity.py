# %% [markdown]
# # Exercises to notebook 03: sensitivity
#
# Three exercises on [03_sensitivity_analysis](../../notebooks/03_sensitivity_analysis.ipynb), with the shipped teacher on eight
# samples. About 50 minutes.

# %%
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.models.gates import Gates
from mobivid_core.paths import project_root
from mobivid_core.teaching.checks import sensitivity as check
from mobivid_core.teaching.samples import teacher_and_samples

teacher, samples = teacher_and_samples(clips=4, samples=4)


def velocity_of(gates: Tensor) -> Tensor:
    """The teacher's velocity with one gate a block: 1 leaves the block as it is, 0 removes it."""
    ones = Gates.ones(teacher.sizes)
    every = Gates(ones.self_heads, ones.cross_heads, ones.ffn, gates)
    return teacher(samples.noisy, samples.timestep, samples.text, samples.mask, gates=every).sample


with torch.no_grad():
    target = velocity_of(torch.ones(14))
print("14 blocks, velocities", tuple(target.shape))

# %% [markdown] tags=["exercise"]
# ## Exercise 1 · A score that sees nothing
#
# Write the gradient of the KD loss $L = \lVert y - y^\star \rVert^2 / \lVert y^\star \rVert^2$ with respect to the gates of the blocks
# ($y$ is `velocity_of(gates)`, $y^\star$ is `target`). Then run it at `torch.ones(14)`, where nothing is removed yet, and say why the
# result is what it is:
#
# - **A** the network is saturated there, so that it hardly reacts;
# - **B** the loss is nowhere negative and is zero at this very point;
# - **C** the gates of whole blocks have no influence on the output;
# - **D** float32 rounds the gradient away.

# %% tags=["solution"]
def gate_gradient(velocity_of, target: Tensor, gates: Tensor) -> Tensor:
    """Gradient of the KD loss with respect to the gates, (14,)."""
    leaf = gates.clone().requires_grad_()
    loss = (velocity_of(leaf) - target).square().sum() / target.square().sum()
    return torch.autograd.grad(loss, leaf)[0]


reason = "B"

# %% tags=["check"]
check.taylor(gate_gradient, velocity_of, target, reason)

# %% [markdown] tags=["instructor"]
# **Note.** At the teacher itself the loss is at its minimum, so every first derivative is zero, for any data and any model. Libraries that
# call a Taylor score "first order" use the *task* loss, whose gradient is not zero. The second derivative is what notebook 03 uses.

# %% [markdown] tags=["exercise"]
# ## Exercise 2 · Damage, and what goes first
#
# Remove one block at a time: `damage[b]` is the KD loss with the gate of block `b` closed and all others open. Then list the blocks in the
# order in which you would remove them, by this measure alone: `order[0]` goes first.

# %% tags=["solution"]
def damage_of(block: int) -> float:
    gates = torch.ones(14)
    gates[block] = 0
    with torch.no_grad():
        return float((velocity_of(gates) - target).square().sum() / target.square().sum())


damage = [damage_of(block) for block in range(14)]
order = np.argsort(damage)

# %% tags=["check"]
check.removal(damage, order, velocity_of, target)

# %% [markdown] tags=["instructor"]
# **Note.** First and last blocks hurt most. The order is that of single removals: damages do not add up, two neighbours may do the same work.
# Notebook 04's table `prune_block_order` shows how far the fourth removal is from its single score. With four samples the order of
# close blocks is noise: let two groups use different seeds in `teacher_and_samples` and compare.

# %% [markdown] tags=["exercise"]
# ## Exercise 3 · Spearman's rho by hand
#
# An estimator is useful if it *ranks* units as exact removal does. Write Spearman's rank correlation with numpy: the ordinary correlation of
# the two lists of ranks (there are no ties). Then apply it to notebook 03's recorded scores.

# %%
recorded = pd.read_csv(project_root() / "figures" / "sens_against_exact.csv")
widths = recorded[recorded["kind"] != "blocks"].pivot(index=["block", "kind", "unit"], columns="estimator", values="score")
exact, estimate = widths["exact"].to_numpy(), widths["Gauss-Newton, 4 probes"].to_numpy()
print(f"{len(exact)} heads and FFN slices")

# %% tags=["solution"]
def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two lists without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return np.corrcoef(*ranks)[0, 1]

# %% tags=["check"]
check.rank_correlation(spearman, exact, estimate)

# %% [markdown] tags=["instructor"]
# **Note.** One `argsort` gives the order, two give the ranks: the commonest slip in practice, and it still returns a plausible number.
# Discuss: a rho of 0.9 over 336 units can hide that the ten units that are *removed* are in the wrong order. What would you report instead?
