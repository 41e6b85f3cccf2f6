"""Tables and figures of notebook 02 with their findings: the flow on a line, trusted measures, quality, sampling."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from mobivid_core import published
from mobivid_core.flow.toy import LineMixture
from mobivid_core.measure import minivbench
from mobivid_core.measure.bars import TEACHER_BARS, bars_table
from mobivid_core.measure.curve import fewest_steps
from mobivid_core.measure.generation import Evaluation
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.minivbench import Scores, Space
from mobivid_core.measure.trials import verdicts
from mobivid_core.measure.trust import space_table
from mobivid_core.show.outcome import FigureResult, TableResult


def toy_flow(toy: LineMixture, steps: Sequence[int], seed: int, n: int = 4000) -> FigureResult:
    """Exact paths of the flow on a line, and what Euler makes of `n` noises in each of several numbers of steps."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    left.plot(torch.linspace(1, 0, 41), toy.paths(torch.linspace(-2.2, 2.2, 15).tolist(), steps=40), color="C0", lw=1)
    left.set(xlabel="$\\sigma$ (1 = noise, 0 = data)", ylabel="x", xlim=(1, 0), title="exact paths")
    bins, samples = torch.linspace(-2.5, 2.5, 61).tolist(), {s: toy.sample(n, s, seed) for s in steps}
    for number, own in samples.items():
        right.hist(own, bins=bins, density=True, histtype="step", lw=1.5, label=f"{number} steps")
    right.hist(toy.draw(n, seed), bins=bins, density=True, color="0.85", label="data", zorder=0)
    right.set(xlabel="x", title="Euler samples", ylim=(0, 1.6))
    right.legend()
    finding = "With the exact velocity, one step lands on the mean of the data; many steps recover both bumps."
    data = pd.DataFrame({"steps": list(samples), "spread": [own.std().item() for own in samples.values()]})
    return FigureResult(fig, finding, data=data)


def training_curve(log: pd.DataFrame, origin: str) -> FigureResult:
    """The teacher's training loss (columns step and loss); `origin` says where it comes from: "shipped" or "run"."""
    smooth = log["loss"].rolling(max(1, len(log) // 25), min_periods=1).mean()
    fig, ax = plt.subplots()
    ax.plot(log["step"], log["loss"], color="0.8", lw=0.8, label="as logged")
    ax.plot(log["step"], smooth, label="running mean")
    ax.set(xlabel="training step", ylabel="flow-matching loss", title=f"teacher ({origin})")
    ax.legend()
    fall = smooth.iloc[0] - smooth
    early = fall[log["step"] <= log["step"].iloc[-1] / 10].max() / fall.iloc[-1]
    finding = (
        f"The teacher's flow-matching loss falls from {smooth.iloc[0]:.2f} to {smooth.iloc[-1]:.2f}; {early:.0%} of "
        "the fall happens in the first tenth of its steps."
    )
    return FigureResult(fig, finding, data=log)


def damage_figure(trials: pd.DataFrame) -> FigureResult:
    """Every measure under every known damage; from `measured_trials`."""
    wide = trials.set_index(["damage", "measure"])["in_noise"].unstack(sort=False)
    fig, ax = plt.subplots(figsize=(8, 4.6))
    ax.imshow(wide.to_numpy(float).clip(-10, 10), cmap="PuOr", vmin=-10, vmax=10, aspect="auto")
    for row in trials.itertuples():
        x, y = wide.columns.get_loc(row.measure), wide.index.get_loc(row.damage)
        text = f"{np.clip(row.in_noise, -99, 99):+.0f}" if abs(row.in_noise) >= 0.5 else ""
        ax.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if abs(row.in_noise) > 7 else "0.15")
        if row.expected:
            look = {"fill": False, "ec": "0.1", "lw": 1.3, "ls": "-" if row.seen == "True" else ":"}
            ax.add_patch(plt.Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, **look))
    ax.set_xticks(range(wide.shape[1]), [name.replace("_", " ") for name in wide], rotation=55, ha="right", fontsize=8)
    ax.set_yticks(range(wide.shape[0]), list(wide.index), fontsize=8)
    ax.grid(False)
    finding = (
        "Change of each measure under each damage, in units of its own noise on intact clips. A frame marks a change "
        "that was required: full where it was seen, dotted where it was missed."
    )
    return FigureResult(fig, finding, data=trials)


def verdict_table(trials: pd.DataFrame) -> TableResult:
    """Which measures passed their trials, and what happens to the others; from `measured_trials`."""
    tested = verdicts(trials)
    lost = {v: ", ".join(tested.measure[tested.verdict == v]) or "none" for v in ("dropped", "marked")}
    finding = (
        f"{(tested.verdict == 'kept').sum()} of {len(tested)} measures moved whenever they should. Dropped from the "
        f"averages: {lost['dropped']}; marked, because they count in no average: {lost['marked']}."
    )
    return TableResult(tested, finding)


def spaces_table(trials: pd.DataFrame, told: str) -> TableResult:
    """What the trials (`measured_trials`) say of each feature space; `told` names the one chosen for headlines."""
    finding = f"Bars and headlines use distances in {told}: this table decides, not a name."
    return TableResult(space_table(trials), finding)


def quality_table(rows: dict[str, Scores], dropped: Sequence[str]) -> TableResult:
    """MiniVBench of the row "teacher" between its reference rows; the averages leave out what was `dropped`."""
    apart = ("all_together", *minivbench.READBACK, *minivbench.PIXELS, *minivbench.DISTANCES)  # beside the total
    names = [*minivbench.QUALITY, *minivbench.SEMANTIC, "quality", "semantic", "total", *apart]
    finding = (
        f"MiniVBench of the teacher and its reference rows on {rows['teacher'].n} test captions; dropped from the "
        f"averages: {', '.join(dropped) or 'none'}."
    )
    return TableResult(minivbench.compare(rows, names, intervals_of="teacher"), finding, paper_item="Table 2")


def semantic_figure(rows: dict[str, Scores]) -> FigureResult:
    """What the judge finds of each attribute, for every row of `quality_table`."""
    shown, teacher = [*minivbench.SEMANTIC, *minivbench.READBACK, "all_together"], rows["teacher"]
    weakest = min(minivbench.SEMANTIC, key=lambda name: teacher[name])
    fig, ax = plt.subplots(figsize=(8, 3.6))
    width, places = 0.8 / len(rows), np.arange(len(shown))
    for i, (title, scores) in enumerate(rows.items()):
        value, low, high = np.array([scores.values[name] for name in shown]).T
        ax.bar(places + i * width, value, width, yerr=[value - low, high - value], label=title, error_kw={"lw": 1})
    ax.set_xticks(places + width * (len(rows) - 1) / 2, shown)
    ax.set(ylabel="share of clips right", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6))
    ax.legend(ncols=2, loc="upper center")
    finding = (
        f"All that the caption asks for is found in {teacher['all_together']:.0%} of the teacher's clips; the weakest "
        f"attribute is {weakest} ({teacher[weakest]:.0%}). `pixels` and `flow` need no judge."
    )
    return FigureResult(fig, finding, data=minivbench.table(rows, shown))


def steps_figure(frame: pd.DataFrame, floor: float, space: Space, guidance: str) -> FigureResult:
    """Quality and time against steps for each solver; from `curve.trace`, at the guidance as shown.

    `floor` is the distance of the VAE's reconstructions with as many clips, `space` where distances are taken.
    """
    quick = fewest_steps(frame[frame.steps >= 4])
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.2))
    for solver, group in frame.groupby("solver", sort=False):
        steps = group["steps"].astype(float)
        for ax, name in zip(axes[:2], ("all_together", "distance"), strict=True):
            (line,) = ax.plot(steps, group[name], marker="o", label=solver)
            ax.fill_between(steps, group[f"{name}_low"], group[f"{name}_high"], alpha=0.12, color=line.get_color())
        axes[2].plot(steps, group["seconds_per_clip"], marker="o", label=solver)
    ticks = sorted(set(frame["steps"]))
    for ax, label in zip(axes, ("share with every attribute right", "Frechet distance", "seconds a clip"), strict=True):
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.set(xlabel="steps", ylabel=label, ylim=(0, None))
    axes[0].set_ylim(-0.02, 1.05)
    axes[1].axhline(floor, ls="--", color="0.4", lw=1, label="VAE reconstructions")
    axes[1].legend(fontsize=8)
    finding = (
        f"Guidance {guidance}, {frame['n'].iloc[0]} clips a point, distances in {space.title}. Fewest calls whose "
        f"interval reaches the best share: {quick.solver} in {quick.steps} steps."
    )
    return FigureResult(fig, finding, data=frame)


def guidance_figure(frame: pd.DataFrame, floor: float) -> FigureResult:
    """Quality against the guidance scale, from `curve.trace` at one solver and number of steps; 1 is without guidance.

    `floor` is the distance of the VAE's reconstructions with as many clips.
    """
    correct, first = frame.set_index("guidance")["all_together"], frame.iloc[0]
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    where = frame["guidance"].astype(float)
    for name, ax in (("all_together", left), ("object_class", left), ("action", left), ("distance", right)):
        ax.plot(where, frame[name], marker="o", label=name)
        ax.fill_between(where, frame[f"{name}_low"], frame[f"{name}_high"], alpha=0.15)
    left.set(xlabel="guidance", ylabel="share of clips right", ylim=(-0.02, 1.05))
    right.set(xlabel="guidance", ylabel="distance", ylim=(0, None))
    left.legend()
    right.axhline(floor, ls="--", color="0.4", lw=1, label="VAE reconstructions")
    right.legend()
    finding = (
        f"All attributes are right most often at guidance {correct.idxmax():g} ({correct.max():.0%}), and in "
        f"{correct.loc[1]:.0%} without guidance: {first.solver} in {first.steps} steps, {first.n} clips a point."
    )
    return FigureResult(fig, finding, data=frame)


def wordings_table(worded: pd.DataFrame) -> TableResult:
    """Accuracy on trained and on unseen phrasings; from `paraphrases`."""
    known = worded.trained == "yes"
    seen, unseen = worded[known].all_together.mean(), worded[~known].all_together.mean()
    finding = (
        f"The same {worded['n'].iloc[0]} captions and noises in {len(worded)} wordings: all attributes are right in "
        f"{seen:.0%} with trained wordings and in {unseen:.0%} with unseen ones."
    )
    return TableResult(worded, finding)


def beyond_table(gap: Interval, wording_gap: Interval, diversity: Interval, clips: int, captions: int) -> TableResult:
    """`unseen_gap` over so many clips, `wording_gap` over so many captions, and `Diversity.ratio` in one table."""
    rows = [
        ("trained minus held-out combinations, all together", *gap, clips),
        ("trained minus unseen wordings, all together", *wording_gap, captions),
        ("diversity within a caption / real clips", *diversity, diversity.n),
    ]
    finding = (
        f"Held-out combinations cost {gap.value:+.2f} of accuracy, unseen wordings {wording_gap.value:+.2f}; clips "
        f"of one caption vary {diversity.value:.2f} times as much as real ones."
    )
    return TableResult(pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n"]), finding)


def time_table(full: Evaluation, steps: int, plain: Evaluation, quick: Evaluation, few_steps: int) -> TableResult:
    """Seconds a clip: sampling (`full`, in `steps`), the same in plain float32, decoding.

    `plain` float32 and `quick`, with this machine's speed-ups, are of the same clips in `few_steps`.
    """
    sampling, decoding = full.seconds_per_clip, full.decode_seconds_per_clip
    agree = (plain.measures.classes == quick.measures.classes).float().mean().item()
    rows = [
        ("sampling", sampling, sampling / steps),
        ("sampling, plain float32", plain.seconds_per_clip, plain.seconds_per_clip / few_steps),
        ("decoding", decoding, None),
    ]
    finding = (
        f"Sampling a clip takes {sampling / decoding:.0f} times as long as decoding it. Plain float32 takes "
        f"{plain.seconds_per_clip / quick.seconds_per_clip:.1f} times as long as this machine's fastest; the judge "
        f"reads {agree:.0%} of {len(plain.labels)} clips' attributes alike."
    )
    return TableResult(pd.DataFrame(rows, columns=["part", "seconds_per_clip", "per_step"]), finding)


def teacher_bars(values: dict[str, Interval], clips: int, sampled: str, told: str) -> TableResult:
    """The teacher's `values`, {key of `TEACHER_BARS`: interval}, against bars that were set before it was trained.

    `sampled` tells steps and guidance, `told` the space of distances.
    """
    bars = bars_table(values)
    finding = (
        f"{bars.verdict.str.startswith('met').sum()} of {len(TEACHER_BARS)} bars are met with {clips} clips, "
        f"{sampled}; distances in {told}."
    )
    return TableResult(bars, finding)


def paper_table(parameters: int, total: float, steps: int) -> TableResult:
    """The paper's server model beside the miniature: its parameters, MiniVBench total on [0, 1] and sampling steps."""
    ours = {
        "C04": f"{parameters / 1e6:.2f} M: a miniature, other scale",
        "C05": f"MiniVBench {100 * total:.1f}: another benchmark, not comparable",
        "C23": f"{steps} steps before distillation",
    }
    rows = [published.claim(name)[["claim", "value", "unit", "evidence"]] for name in ours]
    finding = "The paper's server model beside our miniature: only the number of steps is comparable."
    return TableResult(pd.DataFrame(rows).assign(ours=ours), finding, "paper", "Table 1")
