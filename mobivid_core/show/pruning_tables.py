"""Tables of notebook 04, each with its finding: what a budget allows, what a plan and what the refit is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mobivid_core.errors import BudgetError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.config import SERVER, DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.prune.arithmetic import blocks_nearest, cut_table
from mobivid_core.prune.arms import Arm, ArmResult, arms_table, plan_and_repair, random_units
from mobivid_core.prune.costs import LinearCost, parameter_cost
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.planner import Targets, plan_for_budget, plan_for_targets, uniform_plan
from mobivid_core.prune.refit import RefitReport
from mobivid_core.prune.search import without_blocks
from mobivid_core.prune.surgery import prune
from mobivid_core.sensitivity.estimators import random_scores
from mobivid_core.sensitivity.kd import Reference, output_errors
from mobivid_core.sensitivity.scores import Scores
from mobivid_core.show.outcome import FigureResult, TableResult
from mobivid_core.show.pruning_figures import size_against_loss
from mobivid_core.show.style import PALETTE

#: The plan that goes on to recovery and distillation, as the arms are called.
PAPERS_CUT = "tri-level, equal widths (the paper's cut)"
BLOCKS_ONLY, NO_KD = "block-only", "tri-level without KD: Fisher of the data's loss"
CHANCE = "random units, the same blocks and widths"
#: Plans that are compared with and without the refit.
PLANS = (PAPERS_CUT, CHANCE, BLOCKS_ONLY)


def floors_table(server: DiTConfig, mobile: DiTConfig) -> TableResult:
    """What each level alone could reach at the paper's size."""
    cut = cut_table(server, mobile)
    floors = cut.set_index("levels")["floor, B"]
    finding = (
        f"No width level alone reaches the mobile size: without any head {floors['heads']:.3f} B are left, without any "
        f"FFN neuron {floors['ffn']:.3f} B. Only blocks alone, or levels together, get there."
    )
    return TableResult(cut, finding, "derived", "Table 4, R1.2")


def block_order(history: Sequence[tuple[int, float]], exact: Scores) -> TableResult:
    """Blocks in the order of their removal, each beside the damage that it does alone."""
    order = pd.DataFrame(history, columns=["removed block", "KD loss after"])
    order["rise"] = order["KD loss after"].diff().fillna(order["KD loss after"])
    order["score alone"] = exact.blocks[order["removed block"]]
    last = order.iloc[-1]
    finding = (
        f"The last removed block adds {last['rise'] / last['score alone']:.1f} times the damage that it does alone: "
        "block damages interact, so they are measured again after every removal."
    )
    return TableResult(order, finding)


def currencies_table(
    teacher: MobiVidTransformer3DModel, scores: Scores, prices: Mapping[str, LinearCost], held_out: Reference
) -> TableResult:
    """The same scores and shares of a budget in several currencies: what goes, and the KD loss right after the cut."""
    rows = []
    for share in (0.8, 0.65, 0.5):
        for name, cost in prices.items():
            plan = plan_for_budget(scores, teacher.sizes, share * cost.total(teacher.sizes), cost=cost)
            left = {f"{k} left": c.total(plan.sizes) / c.total(teacher.sizes) for k, c in prices.items()}
            heads = sum(plan.sizes.self_heads) + sum(plan.sizes.cross_heads)
            kept = {"blocks": plan.sizes.blocks, "heads": heads, "neurons": sum(plan.sizes.ffn_widths)}
            error = float(output_errors(prune(teacher, plan).eval(), held_out).mean())
            rows.append({"budget in": name, "share": share, **kept, **left, "KD pruned": error})
    table = pd.DataFrame(rows)
    half = table[table["share"] == 0.5].set_index("budget in")
    seconds, parameters = half.loc["phone seconds (predicted)"], half.loc["parameters"]
    finding = (
        f"At half of the predicted phone seconds {seconds['parameters left']:.2f} of the parameters are left, and "
        f"{seconds['blocks']} blocks; at half of the parameters "
        f"{parameters['phone seconds (predicted) left']:.2f} of the seconds, and {parameters['blocks']} blocks. KD "
        "losses are those right after the cut."
    )
    return TableResult(table, finding)


def ratios_table(plan: PruningPlan, flops: float, seconds: Interval, paper_parameters: float) -> TableResult:
    """Student over teacher: counted FLOPs, measured seconds, and parameters at the paper's scale."""
    whole = parameter_cost(plan.source).total(plan.source)
    rows = [
        {"ratio student / teacher": "parameters", "value": plan.parameters / whole, "evidence": "derived"},
        {"ratio student / teacher": "FLOPs", "value": flops, "evidence": "derived"},
        {"ratio student / teacher": "time", **intervals.cells(seconds), "evidence": "measured"},
        {"ratio student / teacher": "paper scale: parameters", "value": paper_parameters, "evidence": "derived"},
    ]
    finding = (
        f"Counted FLOPs fall to {flops:.2f} of the teacher's, measured time to {seconds.value:.2f} in the same run on "
        "this machine."
    )
    return TableResult(pd.DataFrame(rows), finding)


def block_levels(sizes: DiTConfig, removals: Sequence[tuple[int, float]], budget: float) -> PruningPlan:
    """Block-only plan nearest to a budget, in the order in which blocks were removed."""
    gone = {block for block, _ in removals[: sizes.blocks - blocks_nearest(sizes, budget)]}
    return without_blocks(sizes, tuple(b for b in range(sizes.blocks) if b not in gone))


def comparison_arms(
    plans: Mapping[str, PruningPlan], scores: Scores, queue: Scores, fisher: Scores,
    removals: Sequence[tuple[int, float]], mild: float, seed: int,
) -> list[Arm]:  # fmt: skip
    """The arms of notebook 04: at the paper's size, then at a milder one, where every level can exist, and halfway.

    `plans` are further arms at the paper's size, `PAPERS_CUT` among them. `scores` are the damage of heads and neurons,
    `queue` that of all units, `fisher` the data's own criterion; `removals` (block, KD loss after) are in the order of
    removal, down to the paper's size by blocks alone; `mild` is the milder budget in parameters.
    """
    cut = plans[PAPERS_CUT]
    sizes, targets = cut.source, Targets(cut.sizes.blocks, cut.sizes.self_heads[0], cut.sizes.ffn_widths[0])
    halfway = (mild + cut.parameters) / 2
    at_size = {
        **plans,
        CHANCE: random_units(cut, seed),
        NO_KD: plan_for_targets(fisher, sizes, targets),
        BLOCKS_ONLY: block_levels(sizes, removals, cut.parameters),
        "uniform": uniform_plan(sizes, targets),
        "random blocks and units": plan_for_targets(random_scores(sizes, seed), sizes, targets),
        "mild: any level, one queue": plan_for_budget(queue, sizes, mild),
        "mild: block-only": block_levels(sizes, removals, mild),
        "mild: head-only": plan_for_budget(scores, sizes, mild, ("heads",)),
        "mild: FFN-only": plan_for_budget(scores, sizes, mild, ("ffn",)),
        "halfway: any level, one queue": plan_for_budget(queue, sizes, halfway),
        "halfway: block-only": block_levels(sizes, removals, halfway),
    }
    plain = [Arm(f"no refit: {name}", at_size[name], refit=False) for name in PLANS]
    return [Arm(name, plan) for name, plan in at_size.items()] + plain


class ArmsCompared:
    """`comparison_arms` after equal recovery (`run_arms`), and the ratios that claims rest on."""

    def __init__(self, results: Sequence[ArmResult], teacher_parameters: float, seed: int = 0) -> None:
        self.by_name = {result.arm.name: result for result in results}
        self.table = arms_table(results, teacher_parameters, seed)
        self.repairs = plan_and_repair(results, PLANS, PAPERS_CUT, seed)
        self._seed = seed
        at_size = self.table[~self.table["arm"].str.startswith(("mild", "halfway", "no refit"))]
        #: The arm of the paper's size with the lowest loss.
        self.best = str(at_size.loc[at_size["KD recovered"].idxmin(), "arm"])

    def over(self, ours: str, other: str) -> Interval:
        """KD loss after recovery of one arm over another's, paired over held-out clips."""
        pair = (self.by_name[name].recovered for name in (ours, other))
        return intervals.ratio(*pair, seed=self._seed)

    def arms(self, steps: int) -> TableResult:
        """Every arm; `steps` of recovery each."""
        blocks, best = self.over(PAPERS_CUT, BLOCKS_ONLY), self.over(self.best, PAPERS_CUT)
        kept = self.by_name[self.best].arm.plan
        finding = (
            f"At the paper's size and after {steps} equal steps, the tri-level cut's KD loss is {blocks.value:.2f} of "
            f"block-only's [{blocks.low:.2f}, {blocks.high:.2f}] ({blocks.kind}, {blocks.n} {blocks.over}; one seed of "
            f"recovery). The best arm of that size is '{self.best}', at {best.value:.2f} of the paper's cut; it keeps "
            f"{len(kept.keep_blocks)} of {kept.source.blocks} blocks."
        )
        return TableResult(self.table, finding, paper_item="Table 4")

    def curve(self) -> FigureResult:
        """KD loss over the parameters that are left, as lines over budgets where an arm exists at several."""
        lost = self.table.set_index("arm")["KD recovered"]
        ratios = {
            where: lost[f"{prefix}any level, one queue"] / lost[f"{prefix}{BLOCKS_ONLY}"]
            for where, prefix in (("the milder size", "mild: "), ("halfway", "halfway: "), ("the paper's size", ""))
        }
        told = ", ".join(f"{ratio:.2f} at {where}" for where, ratio in ratios.items())
        finding = (
            f"One queue over all three levels has this share of block-only's KD loss: {told}. At the paper's size "
            f"'{self.best}' is lowest. Intervals are over held-out clips, not over seeds."
        )
        return FigureResult(size_against_loss(self.table), finding, data=self.table)

    def plan_or_repair(self) -> TableResult:
        """What the choice of units is worth, and what the refit is worth: they are two claims."""
        rows = self.repairs.set_index(["refit", "plan"])
        over, loss = rows["over ours"], rows["KD recovered"]
        told = "; ".join(
            f"{word} the refit random units have {over[refit, CHANCE]:.2f} and block-only "
            f"{over[refit, BLOCKS_ONLY]:.2f} times the loss of the chosen ones"
            for word, refit in (("without", "no"), ("with", "yes"))
        )
        repair = loss["yes", PAPERS_CUT] / loss["no", PAPERS_CUT]
        finding = (
            f"KD loss after equal recovery: {told}. The refit alone takes the paper's cut to {repair:.2f} of its loss."
        )
        return TableResult(self.repairs, finding, paper_item="Table 4, R1.2")


def levels_alone(
    teacher: MobiVidTransformer3DModel, scores: Scores, queue: Scores, removals: Sequence[tuple[int, float]],
    held_out: Reference,
) -> TableResult:  # fmt: skip
    """Each level alone at three milder sizes right after the cut; a refusal says which floor applies.

    Sizes are those of the server model in billions, whose share of parameters is taken; arguments as `comparison_arms`.
    """
    whole, rows = parameter_cost(teacher.sizes).total(teacher.sizes), []
    for billions in (1.75, 1.50, 1.25):
        budget = billions * 1e9 / parameter_cost(SERVER).total(SERVER) * whole
        for level in ("blocks", "heads", "ffn", "all three, one queue"):
            row = {"equivalent, B": billions, "level": level}
            try:
                if level == "blocks":
                    plan = block_levels(teacher.sizes, removals, budget)
                elif level in ("heads", "ffn"):
                    plan = plan_for_budget(scores, teacher.sizes, budget, (level,))
                else:
                    plan = plan_for_budget(queue, teacher.sizes, budget)
            except BudgetError as error:
                rows.append(row | {"refused": str(error)[:100]})
                continue
            error = float(output_errors(prune(teacher, plan).eval(), held_out).mean())
            rows.append(row | {"share": plan.parameters / whole, "KD pruned": error})
    table = pd.DataFrame(rows)
    lowest = table.loc[table.groupby("equivalent, B")["KD pruned"].idxmin()].set_index("equivalent, B")["level"]
    told = ", ".join(f"{size:.2f} B-equivalent: {level}" for size, level in lowest.sort_index().items())
    return TableResult(table, f"Lowest KD loss right after the cut: {told}.", paper_item="R1.2")


def lessons_table(recoveries: pd.DataFrame, steps: int, clips: int) -> TableResult:
    """What the recovery should learn from; `recoveries` from `studies.ablation.recovery_ablation`."""
    best, worst = (recoveries.loc[pick(recoveries["KD recovered"])] for pick in (pd.Series.idxmin, pd.Series.idxmax))
    finding = (
        f"After {steps} equal steps on {clips} clips '{best['recovery']}' is lowest, at {best['KD recovered']:.3f}; "
        f"the worst, '{worst['recovery']}', reaches {worst['KD recovered']:.3f}. Judged on real held-out clips."
    )
    return TableResult(recoveries, finding)


def refit_figure(report: RefitReport, before: np.ndarray, after: np.ndarray) -> FigureResult:
    """Each layer's error before and after its least-squares solution, and the KD loss (N,) of held-out clips."""
    fig, ax = plt.subplots()
    x = np.arange(len(report.layers))
    ax.plot(x, report.before, "o", ms=4, color=PALETTE["vermillion"], label="pruned weights")
    ax.plot(x, report.after, "o", ms=4, color=PALETTE["blue"], label="solved weights")
    ax.vlines(x, report.after, report.before, color="0.8", zorder=0)
    names = [name.split(".")[1] if name.startswith("blocks") else "out" for name in report.layers[1::3]]
    ax.set(yscale="log", ylabel="relative error of the target", xlabel="layer, in order")
    ax.set(xticks=x[1::3], xticklabels=names)
    ax.legend()
    finding = (
        f"The refit lowers the KD loss on {len(before)} held-out clips from {before.mean():.3f} to {after.mean():.3f}, "
        "in one pass and without a gradient."
    )
    data = pd.DataFrame({"layer": report.layers, "before": report.before, "after": report.after})
    return FigureResult(fig, finding, data=data)
