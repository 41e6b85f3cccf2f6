"""Tables of notebook 05, each with its finding: where students stand, what they cost and save, what an image adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor, nn

from mobivid_core import artifacts
from mobivid_core.distill.costs import DistillCosts
from mobivid_core.distill.free import FreeBaseline
from mobivid_core.distill.image_to_video import first_frame_table, from_first_frames
from mobivid_core.distill.own_states import own_states
from mobivid_core.distill.regression import chord_errors
from mobivid_core.distill.student import STUDENTS
from mobivid_core.distill.trainer import Distiller
from mobivid_core.distill.trajectory import Trajectories
from mobivid_core.flow.guidance import as_guidance
from mobivid_core.measure import intervals, minivbench
from mobivid_core.measure.bars import bars_table
from mobivid_core.measure.comparison import DISTILL_BARS, Seconds
from mobivid_core.measure.diversity import Diversity
from mobivid_core.measure.generation import Evaluation, Evaluator
from mobivid_core.measure.intervals import Interval
from mobivid_core.measure.minivbench import Scores, Space
from mobivid_core.models.config import MOBILE, SERVER
from mobivid_core.models.counts import dit_flops, latent_grid
from mobivid_core.models.sampler import Sampler
from mobivid_core.published import claim
from mobivid_core.show.outcome import FigureResult, TableResult


def training_curves(trained: Mapping[str, Distiller]) -> FigureResult:
    """Regression loss and the discriminator's margin of a live distillation; the last stage is the adversarial one."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    logs = {name: pd.DataFrame(d.log) for name, d in trained.items()}
    smooth = {name: log["regression"].rolling(5, min_periods=1).mean() for name, log in logs.items()}
    for name, log in logs.items():
        axes[0].plot(log["step"], smooth[name], label=name)
    first, last = next(iter(smooth.values())), list(logs.values())[-1]
    margin = last["real_logit"] - last["fake_logit"]
    axes[1].plot(last["step"], margin, marker=".", color="C1")
    axes[0].set(xlabel="update of the stage", ylabel="regression loss (velocity MSE)", yscale="log")
    axes[1].set(xlabel="update of the stage", ylabel="D(real) - D(student)")
    axes[0].legend()
    finding = (
        f"The live regression takes the loss from {first.iloc[0]:.2f} to {first.iloc[-1]:.2f} (mean of five updates); "
        f"at the end of the second stage the discriminator puts real clips {margin.tail(5).mean():+.2f} logits from "
        "the student's samples."
    )
    data = pd.concat([log.assign(stage=n) for n, log in logs.items()], ignore_index=True)
    return FigureResult(fig, finding, data=data.drop(columns="seconds"))


def standing_table(students: Mapping[str, nn.Module], teacher: nn.Module, fresh: Trajectories) -> TableResult:
    """Chord errors of students on new noises and captions, from states of the teacher's path and from their own."""
    rows = []
    sigmas = [f"sigma {s:g}" for s in fresh.sigmas[1:-1].tolist()]
    for name, model in students.items():
        for whose, chords in (("the teacher's", fresh), ("its own", own_states(model, teacher, fresh))):
            errors = chord_errors(model, chords)[1:]  # the first chord starts from the same noise
            row = {"student": name, "states": whose, **dict(zip(sigmas, errors, strict=True))}
            rows.append(row | {"mean": sum(errors) / len(errors)})
    table = pd.DataFrame(rows)
    means = table.pivot(index="student", columns="states", values="mean")
    growth = means["its own"] / means["the teacher's"]
    told = ", ".join(f"{name} {growth[name]:.2f}" for name in students)
    finding = (
        f"Squared velocity error from the student's own states over that from the teacher's: {told} ({len(fresh)} "
        "validation captions; the teacher shows where each step should end)."
    )
    return TableResult(table, finding)


def quality_table(
    rows: Mapping[str, Scores], shown: Sequence[str], spread: Mapping[str, Diversity], asked: Sequence[str]
) -> TableResult:
    """Every MiniVBench dimension, with intervals those `shown` first, and how varied the clips of one caption are.

    `rows` are {title: scores}, reference rows first; `asked` has the titles of teacher, pruned student and distilled
    teacher.
    """
    first = [*shown, "dynamic_degree"]
    names = (*minivbench.SEMANTIC, *minivbench.QUALITY, "quality", "semantic", "total", *minivbench.PIXELS)
    others = [name for name in names if name not in first]
    table = minivbench.table(dict(rows), [*first, *others])
    table = table.drop(columns=[f"{name}_{end}" for name in others for end in ("low", "high")])
    varied = {title: value.ratio.value for title, value in spread.items()}
    table.insert(2, "diversity (1 = real clips)", table["clips"].map(varied))
    smooth, moving, right = (
        ", ".join(f"{rows[title][name]:.3f}" for title in asked)
        for name in ("motion_smoothness", "dynamic_degree", "action")
    )
    finding = (
        "Four unguided steps beside the guided teacher (teacher, pruned student, distilled teacher): motion smoothness "
        f"{smooth}; dynamic degree {moving}; motion as asked {right}. Noise raises the dynamic degree too, so it says "
        "little alone. The best training-free samplers at four and eight evaluations follow; reference rows first."
    )
    return TableResult(table, finding, paper_item="Table 2")


def image_to_video_table(
    evaluator: Evaluator, starts: Mapping[str, tuple[nn.Module, Sampler]], pictures: Tensor, held: Tensor, seed: int
) -> TableResult:
    """Clips from words alone and from words and a first frame (N, 3, H, W), whose latents (N, C, 1, h, w) are held."""
    rows, n = [], len(pictures)
    for name, (model, sampler) in starts.items():
        ways = {"text only": sampler.on(model), "text and first frame": from_first_frames(model, sampler, held)}
        for how, function in ways.items():
            found = evaluator.evaluate_sampler(function, n=n, seed=seed, keep=n, progress=False)
            asked = {"motion right": "action", "all together": "all_together", "motion smoothness": "motion_smoothness"}
            scores = {title: float(found.scores[measure]) for title, measure in asked.items()}
            rows.append({"sampler": name, "given": how, "n": n, **first_frame_table(found.clips, pictures), **scores})
    table = pd.DataFrame(rows)
    # the finding is on the first of `starts`
    first = table[table["sampler"] == next(iter(starts))].set_index("given")
    given, alone = first.loc["text and first frame"], first.loc["text only"]
    finding = (
        f"Given a first frame, the student's clips start with it at {given['first-frame PSNR, dB']:.1f} dB "
        f"({alone['first-frame PSNR, dB']:.1f} dB without) and keep the motion in {given['motion right']:.0%} of {n}; "
        f"the change after the first frame is {given['jump after it']:.1f} times that between later ones "
        f"({alone['jump after it']:.1f} without)."
    )
    return TableResult(table, finding, paper_item="R3.3")


def costs_table(
    trained: Mapping[str, Distiller], flops: DistillCosts, trajectories: Trajectories, shipped: bool
) -> TableResult:
    """Training of the live and, of a profile that has them, of the `shipped` students: samples, FLOPs, seconds."""
    paths = flops.trajectories(len(trajectories), trajectories.teacher_steps, trajectories.guidance) / 1e12
    live = [{"stage": "teacher trajectories", "samples": len(trajectories), "TFLOP (counted)": paths}]
    live += [
        {"stage": name, "samples": d.step * d.settings.batch, "TFLOP (counted)": flops.training(d.settings) / 1e12,
         "seconds": d.log[-1]["seconds"]}
        for name, d in trained.items()
    ]  # fmt: skip
    parts = [pd.DataFrame(live).assign(student="live")]
    if shipped:
        for stage, title in zip(STUDENTS, ("pruned student", "distilled teacher"), strict=True):
            costs = pd.read_csv(artifacts.shipped_path(stage) / "costs.csv")
            parts.append(costs.assign(student=f"{title} (shipped)"))
    whole = "; ".join(
        f"{part.student.iloc[0]}: {part['TFLOP (counted)'].sum():.0f} TFLOP, {part['seconds'].sum() / 60:.0f} minutes"
        for part in parts[1:]
    )
    frame = pd.concat(parts, ignore_index=True)
    first = ["student", *(["round"] if "round" in frame else []), "stage", "samples", "TFLOP (counted)", "seconds"]
    finding = (
        f"The live distillation trains for {parts[0]['seconds'].sum():.0f} s here and costs "
        f"{parts[0]['TFLOP (counted)'].sum():.1f} TFLOP, trajectories included{'; ' + whole if whole else ''}, all "
        "rounds on record together. FLOPs are counted; blank seconds: its trajectories were there already."
    )
    return TableResult(frame[first], finding, paper_item="R4.1")


#: Name of the timed decoding of latents, the same for every sampler.
DECODING = "decoding"


@dataclass(frozen=True)
class Timed:
    """Samplers timed in one run."""

    samplers: Mapping[str, Sampler]  # the full teacher first
    seconds: Mapping[int, Seconds]  # clips made at once -> measured seconds, of `DECODING` too
    flops: Mapping[str, float]  # of one evaluation of each on the miniature

    def table(self, equal: str, recorded: str) -> TableResult:
        """Seconds a clip beside counted ratios; `equal` names the teacher's cheapest equal among the samplers.

        `recorded` is what recorded runs add to the finding, one sentence or blank.
        """
        full, grid = next(iter(self.samplers)), latent_grid(49, 384, 512)
        whole, half = (dit_flops(sizes, grid)["total"] for sizes in (SERVER, MOBILE))
        paper = {name: half if name.startswith("pruned") else whole for name in self.samplers}
        parts = []
        for batch, seconds in self.seconds.items():
            whole_way, measured = seconds.followed_by(DECODING), seconds.table()
            table = measured[measured["sampler"] != DECODING].reset_index(drop=True)
            table = table.assign(batch=batch, evaluations=[s.evaluations for s in self.samplers.values()])
            ratios = [seconds.faster(full, name) for name in self.samplers]
            faster_of = pd.DataFrame(map(intervals.cells, ratios)).rename(columns={"value": "faster, measured"})
            table = pd.concat([table, faster_of], axis=1)
            table["than the equal"] = [seconds.faster(equal, name).value for name in self.samplers]
            table["with decoding"] = [whole_way.faster(full, name).value for name in self.samplers]
            table["with decoding, than the equal"] = [whole_way.faster(equal, name).value for name in self.samplers]
            for title, one in (("miniature", self.flops), ("paper scale", paper)):
                work = pd.Series([one[name] * s.evaluations for name, s in self.samplers.items()])
                table[f"fewer FLOPs, {title} (counted)"] = work.iloc[0] / work
            parts.append(table)
        frame = pd.concat(parts, ignore_index=True)
        pruned = frame[frame["sampler"].str.startswith("pruned")].set_index("batch")
        sides = (
            (self.samplers[full].name, "faster, measured", "with decoding"),
            (f"the cheapest equal, {self.samplers[equal].name}", "than the equal", "with decoding, than the equal"),
        )
        told = "; ".join(
            f"than {name} " + ", ".join(f"{r[own]:.1f} times at {b} clip(s) a call ({r[whole]:.1f} with decoding)"
                                        for b, r in pruned.iterrows())
            for name, own, whole in sides
        )  # fmt: skip
        return TableResult(
            frame,
            f"Seconds a clip, measured in turn in this run, beside counted ratios. The pruned student is faster {told}."
            f" The distilled teacher isolates the distillation from the pruning. {recorded}".strip(),
        )


def paper_table(faster: float, steps: int, depths: Sequence[int], blocks: int, share: float) -> TableResult:
    """The paper's claims on distillation beside what was done here: the distilled teacher is so many times `faster`.

    The teacher takes `steps`; the discriminator reads its blocks `depths`, and a real batch has a synthetic `share`.
    """
    rows = [claim(i) for i in ("C03", "C23", "C24", "C30", "C31")]
    table = pd.DataFrame([{"claim": r["claim"], "paper": r["value"], "paper's evidence": r["evidence"]} for r in rows])
    table["live distillation (miniature)"] = [
        "4 steps", f"{steps} -> 4", f"{faster:.1f} x (measured)",
        f"frozen teacher, heads on {len(depths)} of {blocks} blocks", f"{share:.0%} synthetic in the real batch",
    ]  # fmt: skip
    finding = (
        "The paper's claims on distillation with their evidence class, beside what the live distillation did; how "
        "far the shipped students follow them is in notebook 07. Blank: no number is public."
    )
    return TableResult(table, finding, paper_item="Table 5")


def live_table(
    evaluator: Evaluator, rows: Mapping[str, tuple[nn.Module, Sampler]], shown: Sequence[str], n: int, seed: int
) -> TableResult:
    """The pruned model as it came and after each live stage."""
    how = {"n": n, "seed": seed, "keep": 0, "quality": False, "progress": False}
    scores = {title: evaluator.run(model, sampler, **how).scores for title, (model, sampler) in rows.items()}
    finding = f"The live distillation, {n} clips: the two starting rows need no training."
    return TableResult(minivbench.table(scores, shown), finding)


def bars_of_students(
    beside: Mapping[str, Mapping[str, Interval]], speeds: Mapping[str, Interval], origin: str, n: int
) -> TableResult:
    """Every bar that was set for the two students ("shipped" or "live") beside what they reached on n test captions.

    `beside` has {stage: from `compare`, with "diversity"}, `speeds` {stage: times faster than the teacher}.
    """
    parts = [bars_table(dict(beside[k]) | {"speed": speeds[k]}, DISTILL_BARS[k]) for k in STUDENTS]
    met = [part["verdict"].str.startswith("met").sum() for part in parts]
    finding = (
        f"Bars set beforehand, {n} test captions, {origin} students: {met[0]} of {len(parts[0])} are met by the pruned "
        f"one, {met[1]} of {len(parts[1])} by the distilled teacher."
    )
    return TableResult(pd.concat(parts, ignore_index=True), finding)


def free_search(free: Mapping[int, FreeBaseline], space: Space) -> TableResult:
    """Every training-free sampler that was tried on validation captions, by the evaluations that were allowed."""
    return TableResult(
        pd.concat([f.table.assign(allowed=count) for count, f in free.items()], ignore_index=True),
        f"{'; '.join(f.finding() for f in free.values())}. Distances in {space.finding()}.",
        paper_item="R4.1",
    )


def few_steps_table(runs: Mapping[Sampler, Evaluation], shown: Sequence[str]) -> pd.DataFrame:
    """Samplers of the same model on the same captions: evaluations, steps, guidance, scores."""
    table = minivbench.table({s.name: run.scores for s, run in runs.items()}, shown)
    table.insert(1, "evaluations", [s.evaluations for s in runs])
    table.insert(2, "steps", [s.steps for s in runs])
    table.insert(3, "guided", ["yes" if as_guidance(s.guidance).needed else "no" for s in runs])
    return table
