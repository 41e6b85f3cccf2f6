"""Every check names what is wrong with usual wrong answers, and never says the right one."""
# ruff: noqa: E501 (one case a line reads better)

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from mobivid_core.flow.toy import LineMixture
from mobivid_core.lab.teaching.checks import distillation, flow, phone, pruning, scorecard, sensitivity, start, vae
from mobivid_core.lab.teaching.verdict import Verdict, Wrong, checked, require, run, unsolved
from mobivid_core.models.sampler import default_grid

TOY = LineMixture(means=(-1.0, 2.0), widths=(0.25, 0.25), weights=(0.25, 0.75))
STATEMENTS = {"fast": "C01", "small": "C13", "ours": "server_params"}
RIGHT_CLASSES = {"fast": "paper", "small": "third-party", "ours": "derived"}
SCORES = {"exact": np.arange(9.0), "good": np.arange(9.0) ** 3, "poor": np.array([3.0, 1, 8, 0, 2, 7, 4, 6, 5])}
CLAIMS = pd.DataFrame(
    {
        "id": ["A", "B", "C", "D", "E"],
        "evidence": ["measured", "measured", "measured", "derived", None],
        "low": [0.95, 0.8, math.nan, 1.0, math.nan],
        "high": [1.0, 1.0, math.nan, 1.1, math.nan],
        "target": [0.9, 0.9, 0.0, 0.9, math.nan],
    }
)
EMPTY, TEXT = "v_empty + g * (v_text - v_empty)", "v_text + g * (v_text - v_empty)"


def euler(x, v, sigma, sigma_next):
    return x + (sigma_next - sigma) * v


def guided(v_empty, v_text, g):
    return v_empty + g * (v_text - v_empty)


def tokens(frames, height, width, ratio):
    return (1 + (frames - 1) // ratio[0]) * (height // ratio[1]) * (width // ratio[2])


#: Blocks of six values that differ in two directions, but for a little noise.
BLOCKS = np.random.default_rng(1).uniform(-1, 1, (80, 2)) @ np.eye(2, 6) + 0.01 * np.random.default_rng(2).uniform(
    -1, 1, (80, 6)
)


def linear_psnr(blocks, numbers):
    energy = np.linalg.svd(blocks - blocks.mean(0), compute_uv=False) ** 2
    return 10 * np.log10(4 / (energy[numbers:].sum() / blocks.size))


def first_order(loss, units):
    return torch.func.grad(loss)(torch.ones(units, dtype=torch.float64))


def hessian(loss, units):
    return torch.autograd.functional.hessian(loss, torch.ones(units, dtype=torch.float64))


def spearman(a, b):
    return np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]


def parameters(blocks, heads, neurons):
    return 36_202_624 + blocks * (18_432 + 2 * heads * (4 * 2048 * 64 + 3 * 64 + 128) + neurons * 4097)


def block_flops(n, d, inner, ffn, text):
    return 8 * n * d * inner + 4 * n * n * inner + 4 * (n + text) * d * inner + 4 * n * text * inner + 4 * n * d * ffn


def fps(frames, tflop, peak, efficiency):
    return frames * peak * efficiency / tflop


def megabytes(n, neurons, tiles):
    return 2 * n * math.ceil(neurons / tiles) / 1e6


def claim_verdict(test, value, low, high, target, digits):
    if test == "digits":
        return "supported" if round(value, digits) == target else "contradicted"
    if test == "covers":
        return "supported" if low <= target <= high else "contradicted"
    if test == "at most":
        low, high, target = -high, -low, -target
    return "supported" if low >= target else "contradicted" if high < target else "undecided"


def point_verdict(test, value, low, high, target, digits):
    if test == "at least":
        return "supported" if value >= target else "contradicted"
    return claim_verdict(test, value, low, high, target, digits)


def prune(up, down, keep):
    return (up[0][keep], up[1][keep]), (down[0][:, keep], down[1])


def refit(activations, weight, keep):
    return torch.linalg.lstsq(activations[:, keep], activations @ weight.T).solution.T


def chords(states, sigmas):
    return states.diff(dim=0) / sigmas.diff()[:, None, None]


def grid(steps):
    return torch.linspace(1, 0, steps + 1)


def trajectory_loss(velocity, states, sigmas):
    errors = [velocity(states[i], float(sigmas[i])) - chord for i, chord in enumerate(chords_of(states, sigmas))]
    return torch.stack(errors).square().mean()


def chords_of(states, sigmas):
    return states.diff(dim=0) / sigmas.diff().reshape(-1, *[1] * (states.ndim - 1))


def at_the_end(velocity, states, sigmas):
    errors = [velocity(states[i + 1], float(sigmas[i + 1])) - c for i, c in enumerate(chords_of(states, sigmas))]
    return torch.stack(errors).square().mean()


def moves_of_quarters(velocity, states, sigmas):
    moves = 4 * (states[:-1] - states[1:])
    return torch.stack([velocity(states[i], float(sigmas[i])) - m for i, m in enumerate(moves)]).square().mean()


def spread(features):
    return torch.stack([torch.pdist(clips).mean() for clips in features]).mean()


REACHABLE = {"blocks": True, "heads": False, "ffn": False}
RIGHT = {
    "savings": lambda: start.savings(20, 20 * 2.0 / 0.9, "calls"),
    "evidence": lambda: start.evidence(RIGHT_CLASSES, ["ours"], STATEMENTS),
    "tokens": lambda: vae.tokens(tokens),
    "rate": lambda: vae.rate(24_576, 192.0, 512),
    "linear": lambda: vae.linear(linear_psnr, 2, BLOCKS, 30.0),
    "sampling": lambda: flow.sampling(euler, guided),
    "taylor": lambda: sensitivity.taylor(first_order, lambda loss, units: hessian(loss, units).diagonal() / 2),
    "ranks": lambda: sensitivity.ranks(spearman, "good", SCORES),
    "floors": lambda: pruning.floors(parameters, REACHABLE),
    "ffn": lambda: pruning.ffn(prune),
    "refit": lambda: pruning.refit(refit),
    "grid": lambda: distillation.grid(grid, 3, default_grid(4)),
    "chords": lambda: distillation.chords(chords),
    "loss_and_spread": lambda: distillation.loss_and_spread(trajectory_loss, spread),
    "flops": lambda: phone.flops(block_flops, 0.077, 0.713),
    "speed": lambda: phone.speed(fps, 15 * 10 / 49 / 20, 10.0, 20.0),
    "tiles": lambda: phone.tiles(megabytes, 9),
    "rules": lambda: scorecard.rules(claim_verdict),
    "fragile": lambda: scorecard.fragile(["A", "B", "C"], ["B", "C"], CLAIMS),
}

#: Wrong call, words that its message has to hold, words of the answer that it must not hold.
WRONG: list[tuple[Callable[[], Verdict], str, tuple[str, ...]]] = [
    (lambda: start.savings(10, 44.4, "calls"), "guided step", ("20", "44")),
    (lambda: start.savings(0.05, 44.4, "calls"), "upside down", ("20", "44")),
    (lambda: start.savings(20, 22.2, "calls"), "added", ("44",)),
    (lambda: start.savings(20, 20, "calls"), "each call got cheaper", ("44",)),
    (lambda: start.savings(20, 44.4, "parameters"), "compare the two factors", ("calls",)),
    (lambda: start.evidence(RIGHT_CLASSES | {"small": "paper"}, ["ours"], STATEMENTS), "1 of 3.*'small'", ("third",)),
    (lambda: start.evidence(RIGHT_CLASSES | {"small": "rumour"}, ["ours"], STATEMENTS), "no evidence class", ()),
    (lambda: start.evidence({"fast": "paper"}, ["ours"], STATEMENTS), "no class yet", ("derived",)),
    (lambda: start.evidence(RIGHT_CLASSES, ["ours", "fast"], STATEMENTS), "only repeats", ("fast", "derived")),
    (lambda: start.evidence(RIGHT_CLASSES, [], STATEMENTS), "one more", ("ours",)),
    (lambda: vae.tokens(lambda f, h, w, r: f // r[0] * (h // r[1]) * (w // r[2])), "image is a video", ()),
    (lambda: vae.tokens(lambda f, h, w, r: math.ceil(f / r[0]) * (h // r[1]) * (w // r[2]) if f == 1 else f / r[0] * (h // r[1]) * (w // r[2])), "first frame is coded alone", ("1344", "- 1")),
    (lambda: vae.tokens(lambda f, h, w, r: tokens(f, h, w, r) * (1 if f == 1 else 2)), "too many", ("1344",)),
    (lambda: vae.tokens(lambda f, h, w, r: tokens(f, h, w, r) - (f > 1)), "too few", ("1344",)),
    (lambda: vae.rate(8192, 192, 512), "three colour values", ("24", "192", "512")),
    (lambda: vae.rate(3072, 192, 512), "group of frames", ("24", "192", "512")),
    (lambda: vae.rate(24_576, 24_576, 512), "how many channels", ("192", "512")),
    (lambda: vae.rate(24_576, 192, 256), "differ in time", ("512",)),
    (lambda: vae.rate(24_576, 192, 16), "fewer numbers", ("512",)),
    (lambda: vae.linear(lambda b, k: linear_psnr(b, k) - 10 * math.log10(4), 2, BLOCKS, 30.0), "That is the peak", ("4",)),
    (lambda: vae.linear(lambda b, k: 2 * linear_psnr(b, k), 2, BLOCKS, 30.0), "ratio of squares", ("10", "20")),
    (lambda: vae.linear(lambda b, k: linear_psnr(b, k) - 10 * math.log10(b.shape[1]), 2, BLOCKS, 30.0), "over values", ()),
    (lambda: vae.linear(lambda b, k: linear_psnr(b - b.mean(0), k + 1), 2, BLOCKS, 30.0), "too many", ()),
    (lambda: vae.linear(lambda b, k: linear_psnr(np.vstack([b, -b]), k), 2, BLOCKS, 30.0), "in common", ("mean",)),
    (lambda: vae.linear(lambda b, k: 99.0, 2, BLOCKS, 30.0), "no linear codec", ()),
    (lambda: vae.linear(lambda b, k: 0.1, 2, BLOCKS, 30.0), "does better", ("svd",)),
    (lambda: vae.linear(linear_psnr, 1, BLOCKS, 30.0), "not yet 30 dB", ("2",)),
    (lambda: vae.linear(linear_psnr, 3, BLOCKS, 30.0), "fewer numbers", ("2",)),
    (lambda: flow.sampling(lambda x, v, s, n: x + (s - n) * v, guided), "towards the noise", ("sigma_next",)),
    (lambda: flow.sampling(lambda x, v, s, n: x - s * v, guided), "not to sigma 0.2", ("sigma_next",)),
    (lambda: flow.sampling(euler, lambda e, c, g: c + g * (c - e)), "g = 1 has to mean no guidance", (EMPTY, TEXT)),
    (lambda: flow.sampling(euler, lambda e, c, g: c + g * (e - c)), "swapped", (EMPTY,)),
    (lambda: flow.sampling(euler, lambda e, c, g: c), "past the caption's", (EMPTY,)),
    (lambda: flow.one_step(2.0, 4, TOY), "one of the two bumps", ("1.25", "mean")),
    (lambda: flow.one_step(0.5, 4, TOY), "equal shares", ("1.25",)),
    (lambda: flow.one_step(1.25, 1, TOY), "too close", ()),
    (lambda: flow.one_step(1.25, 40, TOY), "fewer reaches", ()),
    (lambda: sensitivity.taylor(lambda loss, n: torch.func.grad(loss)(torch.zeros(n, dtype=torch.float64)), first_order), "At which gates", ("ones",)),
    (lambda: sensitivity.taylor(first_order, lambda loss, n: hessian(loss, n).diagonal()), "same factor", ("0.5", "half", "1/2")),
    (lambda: sensitivity.taylor(first_order, first_order), "zero everywhere", ("hessian",)),
    (lambda: sensitivity.taylor(first_order, lambda loss, n: hessian(loss, n).sum(1) / 2), "own entry", ("half",)),
    (lambda: sensitivity.ranks(lambda a, b: np.corrcoef(a, b)[0, 1], "good", SCORES), "values, not ranks", ("argsort",)),
    (lambda: sensitivity.ranks(lambda a, b: -spearman(a, b), "good", SCORES), "sign", ()),
    (lambda: sensitivity.ranks(lambda a, b: np.corrcoef(np.argsort(a), np.argsort(b))[0, 1], "good", SCORES), "which rank", ("argsort(np",)),
    (lambda: sensitivity.ranks(spearman, "poor", SCORES), "closer", ("good",)),
    (lambda: pruning.floors(lambda b, h, n: parameters(b, h, n) - b * n, REACHABLE), "bias", ("4097",)),
    (lambda: pruning.floors(lambda b, h, n: parameters(b, h / 2, n), REACHABLE), "two kinds", ("524",)),
    (lambda: pruning.floors(lambda b, h, n: parameters(b, h, n) - 256 * b * h, REACHABLE), "missing", ("524",)),
    (lambda: pruning.floors(parameters, REACHABLE | {"ffn": True}), "everything.*compare", ("False",)),
    (lambda: pruning.ffn(lambda up, down, keep: ((up[0][keep], up[1]), (down[0][:, keep], down[1]))), "bias has one entry", ()),
    (lambda: pruning.ffn(lambda up, down, keep: ((up[0][keep], up[1][keep]), (down[0], down[1]))), "lose columns", ("[:,",)),
    (lambda: pruning.ffn(lambda up, down, keep: ((up[0][keep], up[1][keep]), (down[0][:, :4], down[1]))), "same neurons", ("[:,",)),
    (lambda: pruning.refit(lambda a, w, keep: w[:, keep]), "untouched", ("lstsq",)),
    (lambda: pruning.refit(lambda a, w, keep: refit(a, w, keep).T), "transposed", ("lstsq",)),
    (lambda: pruning.refit(lambda a, w, keep: 2 * w[:, keep]), "farther", ("lstsq",)),
    (lambda: pruning.refit(lambda a, w, keep: (w[:, keep] + refit(a, w, keep)) / 2), "smaller squared error", ("lstsq",)),
    (lambda: distillation.grid(lambda n: torch.linspace(1, 0, n), 3, default_grid(4)), "one noise level more", ("linspace",)),
    (lambda: distillation.grid(lambda n: torch.linspace(0, 1, n + 1), 3, default_grid(4)), "starts at noise", ("linspace",)),
    (lambda: distillation.grid(lambda n: torch.linspace(1, 0, n + 1) ** 2, 3, default_grid(4)), "same length", ("linspace",)),
    (lambda: distillation.grid(grid, 4, default_grid(4)), "how far each step", ("3", "three")),
    (lambda: distillation.chords(lambda states, sigmas: states.diff(dim=0)), "over the length", (".diff",)),
    (lambda: distillation.chords(lambda states, sigmas: -chords(states, sigmas)), "sign", ("diff",)),
    (lambda: distillation.loss_and_spread(at_the_end, spread), "Where on a step", ("states[", "starts")),
    (lambda: distillation.loss_and_spread(moves_of_quarters, spread), "differ in length", (".diff", "divide")),
    (lambda: distillation.loss_and_spread(lambda *a: 0.0, spread), "does not notice", ("square", "mean")),
    (lambda: distillation.loss_and_spread(lambda *a: 4 * trajectory_loss(*a), spread), "4 times", ("diff",)),
    (lambda: distillation.loss_and_spread(trajectory_loss, lambda f: torch.pdist(f.flatten(0, 1)).mean()), "other captions", ("pdist",)),
    (lambda: distillation.loss_and_spread(trajectory_loss, lambda f: torch.cdist(f, f).mean()), "no pair", ("pdist", "3/4")),
    (lambda: distillation.loss_and_spread(trajectory_loss, lambda f: 2 * spread(f)), "2 times", ("pdist",)),
    (lambda: phone.flops(lambda *a: block_flops(*a) / 2, 0.077, 0.713), "two FLOPs", ()),
    (lambda: phone.flops(lambda n, d, i, f, t: block_flops(n, d, i, f, t) - 4 * n * n * i * (n > 1), 0.077, 0.713), "scores", ()),
    (lambda: phone.flops(block_flops, 7.7, 0.713), "not a percentage", ("0.07", "0.08")),
    (lambda: phone.flops(block_flops, 0.6, 0.713), "too large", ("0.07", "0.08")),
    (lambda: phone.speed(lambda f, t, p, e: t / (p * e), 0.15, 10.0, 20.0), "seconds of a clip", ("70",)),
    (lambda: phone.speed(lambda f, t, p, e: f * p / t, 0.15, 10.0, 20.0), "whole peak", ("70",)),
    (lambda: phone.speed(fps, 6.53, 10.0, 20.0), "cannot exceed", ("0.15",)),
    (lambda: phone.speed(fps, 0.245, 10.0, 20.0), "24 frames", ("0.15",)),
    (lambda: phone.tiles(lambda n, f, k: 4 * n * math.ceil(f / k) / 1e6, 9), "two bytes", ("16.5",)),
    (lambda: phone.tiles(lambda n, f, k: 2 * n * f / 1e6, 9), "one after the other", ("4.1",)),
    (lambda: phone.tiles(lambda n, f, k: 2 * n * f / k / 1e6, 9), "cannot all be equal", ("ceil",)),
    (lambda: phone.tiles(megabytes, 8), "more than 2 MB", ("9", "nine")),
    (lambda: phone.tiles(megabytes, 16), "fewer tiles", ("9", "nine")),
    (lambda: scorecard.rules(point_verdict), "'at least'", (">=",)),
    (lambda: scorecard.fragile(["A", "B", "C", "D"], ["B", "C"], CLAIMS), "model or arithmetic", ("'D'",)),
    (lambda: scorecard.fragile(["A", "B"], ["B"], CLAIMS), "is missing", ("'C'",)),
    (lambda: scorecard.fragile(["A", "B", "C"], ["B"], CLAIMS), "NaN", ("'C'",)),
    (lambda: scorecard.fragile(["A", "B", "C"], ["C"], CLAIMS), "one more", ("'B'",)),
    (lambda: scorecard.fragile(["A", "B", "C"], ["A", "B", "C"], CLAIMS), "whole interval", ("'A'",)),
]  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes(name: str) -> None:
    verdict = RIGHT[name]()
    assert verdict.ok and verdict.check.endswith(f".{name}"), verdict


def test_the_least_number_of_steps_passes() -> None:
    assert sum(flow.one_step(1.25, steps, TOY).ok for steps in range(1, 30)) == 1


@pytest.mark.parametrize("case", WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_a_wrong_answer_is_explained_and_not_corrected(case: tuple) -> None:
    call, words, answer = case
    verdict = call()
    assert verdict.status == "wrong" and re.search(words, verdict.message), verdict
    assert not [part for part in answer if part in verdict.message], verdict


def test_every_check_has_a_right_and_a_wrong_case() -> None:
    modules = (start, vae, flow, sensitivity, pruning, distillation, phone, scorecard)
    names = {n for m in modules for n, f in vars(m).items() if hasattr(f, "__wrapped__") and f.__module__ == m.__name__}
    assert names == {*RIGHT, "one_step"}
    assert names == {call().check.split(".")[1] for call, *_ in WRONG}


def test_gaps_errors_and_nonsense_never_raise() -> None:
    assert vae.rate(..., 192, None).message.count("`") == 4
    assert vae.tokens(lambda *a: unsolved("token_count")).status == "open"
    assert vae.tokens(lambda *a: None).status == "open"
    broken = vae.tokens(lambda *a: 1 / 0)
    assert broken.status == "wrong" and "raised ZeroDivisionError: division by zero" in broken.message
    assert "asks for a function" in vae.tokens(7).message
    assert "could not be read" in vae.rate("many", 192, 512).message or vae.rate("many", 192, 512).status == "wrong"
    assert phone.tiles(megabytes, "nine").status == "wrong"


def test_a_verdict_shows_its_state_and_escapes_what_students_write() -> None:
    @checked
    def topic(answer: str) -> str:
        if answer != "yes":
            raise Wrong(f"not {answer}")
        return "good"

    assert str(topic("yes")) == "Right: good" and topic("yes").ok
    shown = topic("<b>no</b>")._repr_mimebundle_()
    assert "<b>no" not in shown["text/html"] and shown["text/plain"] == "Not yet: not <b>no</b>"


def test_a_gap_shows_one_line_instead_of_a_traceback() -> None:
    with pytest.raises(Exception, match="`tokens`") as gap:
        require(tokens=..., done=3)
    assert gap.value._render_traceback_() == [f"Open: {gap.value}"]
    require(done=None, number=0)
    assert run(lambda: 0) == 0
