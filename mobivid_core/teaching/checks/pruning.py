"""Checks of notebook 04's exercises: what one level can reach, masked equals pruned, the least-squares refit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.deploy.counts import dit_params
from mobivid_core.models.config import MOBILE, SERVER
from mobivid_core.teaching.verdict import Wrong, checked, run, wrong_if

_COUNTED = {"self_attention", "cross_attention", "ffn"}
Layer = tuple[Tensor, Tensor, Tensor, Tensor]  # up weight and bias, down weight and bias


@checked
def floors(
    block_parameters: Callable[[int, int, int, int], int], left: Mapping[str, float], reachable: Mapping[str, bool]
) -> str:
    """`block_parameters(hidden, heads, head_dim, ffn)`, parameters `left` without heads or FFN, and what is `reachable`."""
    for cfg in (SERVER, MOBILE):
        counts = dit_params(cfg)
        block = sum(counts[kind] for kind in _COUNTED) / cfg.blocks
        ratio = run(block_parameters, cfg.hidden, cfg.self_heads[0], cfg.head_dim, cfg.ffn_widths[0]) / block
        wrong_if(0.73 < ratio < 0.77, "one of the two attentions is missing: a block looks at the clip and at the text.")
        wrong_if(0.48 < ratio < 0.52 and cfg is SERVER, "half of a block is missing: attention and FFN weigh the same here.")
        wrong_if(ratio > 1.3, f"{ratio:.2f} times the real block: is each projection counted once?")
        # Biases and norm weights are left out of the formula: 0.1 % of a block.
        wrong_if(abs(ratio - 1) > 0.005, f"{ratio:.3f} times the real block's parameters at width {cfg.hidden}, {cfg.self_heads[0]} heads.")
    total, goal = dit_params(SERVER)["total"], dit_params(MOBILE)["total"]
    counts = dit_params(SERVER)
    expected = {"heads": total - counts["self_attention"] - counts["cross_attention"], "ffn": total - counts["ffn"]}
    wrong_if(set(left) != set(expected), "`left` needs the keys 'heads' and 'ffn': what is left once all of them are gone.")
    for level, floor in expected.items():
        wrong_if(abs(left[level] - (total - floor)) < 0.01 * total, f"{level}: that is what is removed, not what is left.")
        wrong_if(
            abs(left[level] - floor) > 0.005 * floor,
            f"{level}: your floor is {left[level] / floor:.2f} times what the model keeps. Were all {SERVER.blocks} blocks counted?",
        )
    wrong_if(set(reachable) != {"heads", "ffn", "blocks"}, "`reachable` needs an answer for 'heads', 'ffn' and 'blocks'.")
    for level, floor in {**expected, "blocks": 0}.items():
        wrong_if(
            bool(reachable[level]) != (floor <= goal),
            f"{level}: compare the least that this level can leave with the mobile model's size.",
        )
    return "a single width level cannot get there, however good its ranking: the arm that reviewers asked for does not exist."


@checked
def masked(cut: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Layer]) -> str:
    """`cut(w_up, b_up, w_down, b_down, keep)`: the FFN without the neurons that `keep` does not list."""
    generator = torch.Generator().manual_seed(1)
    w_up, b_up = torch.randn(12, 5, generator=generator), torch.randn(12, generator=generator)
    w_down, b_down = torch.randn(5, 12, generator=generator), torch.randn(5, generator=generator)
    x, keep = torch.randn(7, 5, generator=generator), torch.tensor([0, 2, 3, 7, 8, 11])
    gate = torch.zeros(12).index_fill(0, keep, 1.0)
    goal = F.linear(F.gelu(F.linear(x, w_up, b_up)) * gate, w_down, b_down)
    small = run(cut, w_up, b_up, w_down, b_down, keep)
    wrong_if(len(small) != 4, "four tensors are asked for: weight and bias of both layers.")
    up, up_bias, down, down_bias = small
    wrong_if(up.shape[0] == 12, "the first layer still has all of its neurons.")
    wrong_if(tuple(down.shape) == (len(keep), 12) or down.shape[0] == len(keep), "in the second layer neurons are inputs: which axis of a torch weight is that?")
    wrong_if(down.shape[1] == 12, "the second layer still reads neurons that are gone.")
    wrong_if(up_bias.shape[0] == 12, "each neuron of the first layer has a bias of its own, which goes with it.")
    try:
        got = F.linear(F.gelu(F.linear(x, up, up_bias)), down, down_bias)
    except RuntimeError as error:
        raise Wrong(f"the two layers do not fit each other: {error}") from error
    others = torch.tensor([i for i in range(12) if i not in keep.tolist()])
    wrong_if(torch.equal(up, w_up[others]), "`keep` lists what stays, and you kept the rest.")
    wrong_if(torch.allclose(got, goal - b_down, atol=1e-5), "the output bias belongs to no neuron: it stays.")
    error = float((got - goal).abs().max())
    wrong_if(error > 1e-5, f"masked and pruned differ by {error:.2g}: same neurons, in the same order, in both layers?")
    return "masked and pruned agree to rounding: scores taken with gates hold for the model that is really smaller."


@checked
def refit(solve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], activations: Tensor, wanted: Tensor, before: float) -> str:
    """`solve(activations, wanted)`: weight (out, kept) and bias (out,) that minimise the squared error."""
    rows = 2 * len(activations) // 3
    weight, bias = run(solve, activations[:rows], wanted[:rows])
    wrong_if(tuple(weight.shape) == tuple(reversed((wanted.shape[1], activations.shape[1]))), "the weight lies on its side: torch keeps (out, in).")
    wrong_if(weight.shape != (wanted.shape[1], activations.shape[1]), f"the weight has the shape {tuple(weight.shape)}.")
    made = activations.double() @ weight.double().T + bias.double()
    rest = (made - wanted.double())[:rows]
    power = float(wanted[:rows].double().norm())
    offset = float(rest.mean(0).norm()) * rows**0.5 / power
    # At the least-squares solution the rest is orthogonal to every column and to the constant; 1e-3 leaves room for float32.
    wrong_if(offset > 1e-3, "the rest has a mean other than zero: the bias is free too, and could take it.")
    slope = float((activations[:rows].double().T @ rest).norm() / (activations[:rows].double().norm() * power))
    wrong_if(
        slope > 1e-3,
        "the rest still goes along with the activations, so another weight has less error: is this the minimum?",
    )
    after = float((made - wanted.double())[rows:].square().sum() / wanted[rows:].double().square().sum())
    wrong_if(after > before, f"on held-out tokens the error grows from {before:.3f} to {after:.3f} of the power.")
    return f"on tokens that were not fitted the error falls from {before:.3f} to {after:.3f} of the power, without a gradient."
