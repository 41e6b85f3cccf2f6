"""Checks of exercise notebook 04: what a unit costs, physical pruning, and the least-squares refit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import gelu

from mobivid_core.lab.teaching.verdict import Wrong, checked, compare, run
from mobivid_core.models.config import MOBILE, SERVER, DiTConfig
from mobivid_core.prune.costs import parameter_cost

Layer = tuple[Tensor, Tensor]


def _count(blocks: int, heads: int, neurons: int) -> float:
    return parameter_cost(SERVER).total(
        DiTConfig.uniform(blocks=blocks, heads=heads, ffn=neurons, hidden=2048, head_dim=64)
    )


@checked
def floors(parameters: Callable[[int, int, int], float], reachable: Mapping[str, bool]) -> str:
    """parameters(blocks, heads of each kind, FFN neurons), and which level alone reaches the mobile size."""
    fixed, found = _count(0, 0, 0), float(run(parameters, 0, 0, 0))
    if found != fixed:
        raise Wrong("`parameters(0, 0, 0)`: without any block exactly the fixed part is left.")
    empty = float(run(parameters, 1, 0, 0)) - fixed
    if empty != _count(1, 0, 0) - fixed:
        raise Wrong("a block without heads and neurons still has the overhead that is given: is it counted once?")
    neuron = float(run(parameters, 1, 0, 1)) - fixed - empty
    compare(neuron, 2 * 2048 + 1, {
        2 * 2048: "a neuron has a bias as well: which of its two layers brings one that goes with the neuron?",
        2 * 2048 + 2: "the down layer's bias belongs to the block (it is in the overhead), not to a neuron.",
    }, "one neuron: a row of the up layer, its bias, and a column of the down layer.")  # fmt: skip
    heads, exact = float(run(parameters, 1, 1, 0)) - fixed - empty, _count(1, 1, 0) - _count(1, 0, 0)
    off = "Something is missing." if heads < exact else "Something is counted that stays."
    compare(heads, exact, {
        exact / 2: "a block has heads of two kinds, in self- and in cross-attention; `heads` counts each kind.",
    }, f"one head: q, k and v with biases, its part of the out layer, two norms. {off}", 1e-9)  # fmt: skip
    if float(run(parameters, 28, 32, 8192)) != _count(28, 32, 8192):
        raise Wrong("right for one unit, wrong for the whole server model.")
    goal = parameter_cost(MOBILE).total(MOBILE)
    least = {"blocks": (1, 32, 8192), "heads": (28, 0, 8192), "ffn": (28, 32, 0)}
    right = {level: _count(*sizes) <= goal for level, sizes in least.items()}
    if set(reachable) != set(right):
        raise Wrong(f"`reachable` needs an entry for each of {', '.join(right)}.")
    off = [level for level in right if bool(reachable[level]) is not right[level]]
    if off:
        raise Wrong(f"`reachable[{off[0]!r}]`: take *everything* of that level away and compare with the mobile size.")
    return "what is left without a level is its floor; a budget below it cannot be asked of that level alone."


@checked
def ffn(prune_ffn: Callable[..., tuple[Layer, Layer]]) -> str:
    """Removing FFN neurons: prune_ffn(up, down, keep) -> up, down; a layer is (weight (out, in), bias (out,))."""
    generator = torch.Generator().manual_seed(3)
    up = torch.randn(10, 4, generator=generator), torch.randn(10, generator=generator)
    down = torch.randn(4, 10, generator=generator), torch.randn(4, generator=generator)
    keep, x = [0, 3, 4, 9], torch.randn(7, 4, generator=generator)
    (up_weight, up_bias), (down_weight, down_bias) = run(prune_ffn, up, down, keep)
    if up_weight.shape != (4, 4):
        raise Wrong(f"up's weight should lose rows, one a removed neuron; its shape is {tuple(up_weight.shape)}.")
    if up_bias.shape != (4,):
        raise Wrong("up's bias has one entry a neuron: those of removed neurons have to go.")
    if down_weight.shape != (4, 4):
        raise Wrong("down's weight should lose columns, one a removed neuron.")
    if down_bias.shape != (4,):
        raise Wrong("down's bias has one entry an output, and outputs stay.")
    gates = torch.zeros(10)
    gates[keep] = 1
    masked = (gelu(x @ up[0].T + up[1]) * gates) @ down[0].T + down[1]
    pruned = gelu(x @ up_weight.T + up_bias) @ down_weight.T + down_bias
    if not torch.allclose(masked, pruned, atol=1e-5):
        raise Wrong(
            "the shapes fit, but the smaller layer computes something else than the masked one. Do weight, bias and "
            "columns belong to the same neurons? Is down's bias left as it was?"
        )
    return "masked and pruned compute the same function: a plan can be tried with gates and cut afterwards."


@checked
def refit(refit_columns: Callable[..., Tensor]) -> str:
    """Least squares: refit_columns(activations (n, k), weight (out, k), keep) -> weight (out, len(keep))."""
    generator = torch.Generator().manual_seed(4)
    activations = torch.randn(200, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    activations = activations + 0.1 * torch.randn(200, 8, generator=generator)
    weight, keep = torch.randn(5, 8, generator=generator), [1, 2, 5, 7]
    found = run(refit_columns, activations, weight, keep)
    if found.shape == (4, 5):
        raise Wrong("the result is transposed: a weight is (outputs, inputs).")
    if found.shape != (5, 4):
        raise Wrong(f"the result should have a row an output and a column a kept input, got {tuple(found.shape)}.")
    left, goal = activations[:, keep], activations @ weight.T
    error = (left @ found.T - goal).square().sum()
    dropped = (left @ weight[:, keep].T - goal).square().sum()
    if torch.allclose(found, weight[:, keep]):
        raise Wrong("these are the old columns, untouched: the ones that are left take nothing over yet.")
    aimed = torch.linalg.lstsq(left, left @ weight[:, keep].T).solution.T
    if torch.allclose(found, aimed, atol=1e-3):
        raise Wrong("your target is the pruned layer's output; which output should be restored?")
    if error > dropped:
        raise Wrong("the output is farther from the teacher's than without any refit.")
    best = (left @ torch.linalg.lstsq(left, goal).solution - goal).square().sum()
    if error > 1.001 * best:
        raise Wrong("better than dropping, but a smaller squared error is possible with these columns.")
    return "the columns that stay take over what they can, in one closed-form step."
