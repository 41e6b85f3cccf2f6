"""One training loop for every stage: resumable to the step, averaged weights, a CSV log, progress.

Randomness is a function of (seed, step) alone: the loss gets a fresh CPU generator each step, so that a run that was
interrupted and resumed, or is split over several processes, draws what an uninterrupted single one would have drawn.
With a `SplitLoss` the same code runs on a CPU, on a GPU, and under `accelerate launch` on many.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.errors import ParameterError, TrainingError
from mobivid_core.train.distributed import SplitLoss, agreed, average_gradients, processes, shard, split, total, whole
from mobivid_core.train.muon import Muon, faster_in_bfloat16
from mobivid_core.train.state import Keeper

_MOST_BAD_STEPS = 10


@dataclass(frozen=True)
class TrainSettings:
    """How to train; a run ends with the steps or the time, if sooner (with a limit in time, resuming is not exact).

    The rate warms up linearly, may be held at its peak, then falls as a cosine.
    """

    steps: int
    seconds: float | None = None  # training time in all, earlier parts of a run included; None for no limit
    warmup: int = 100  # steps of linear warm-up
    hold: float = 0.0  # share of the run that stays at the peak; until then, a longer schedule is the same run
    final_rate: float = 0.02  # rate at the end as a share of the peak
    learning_rate: float = 1e-3  # peak learning rate of AdamW
    weight_decay: float = 0.01  # AdamW's decoupled weight decay
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW's moment decays
    clip_norm: float = 1.0  # gradient norm is clipped to this
    ema: float = 0.999  # decay of the averaged weights; 0 keeps none
    save_every_s: float = 60.0  # seconds between saved states
    log_every: int = 20  # steps between rows of the log
    seed: int = 0  # seed of all randomness
    slow: tuple[str, ...] = ()  # parameter-name prefixes trained at `slow_rate` times the rate
    slow_rate: float = 1 / 30
    muon: float = 0.0  # peak rate of Muon for weight matrices; 0 trains everything with AdamW
    muon_not: tuple[str, ...] = ()  # parts of parameter names that stay with AdamW: inputs, outputs, embeddings
    bf16: bool = False  # compute in bfloat16 under autocast; weights, averages and moments stay float32
    accumulate: int = 1  # micro-batches that a process splits its share of a batch into, for less memory
    sharded: bool = False  # shard the model over all processes (FSDP2) instead of keeping a copy in each

    def position(self, step: int, spent_s: float = 0.0) -> float:
        """Steps done, or the time spent in units of the steps, whichever is further; `steps` is the end."""
        return step if self.seconds is None else max(step, self.steps * spent_s / self.seconds)

    def rate(self, step: int, spent_s: float = 0.0) -> float:
        """Share of the peak learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        start = max(self.warmup, round(self.hold * self.steps))
        done = (self.position(step, spent_s) - start) / max(1, self.steps - start)
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


@dataclass
class TrainResult:
    """What a training run left."""

    averaged: nn.Module  # the model with averaged weights (the model itself where none were kept); may be in shards
    log: list[dict[str, float]] = field(default_factory=list)  # rows `step, loss, ..., seconds`
    seconds: float = 0.0  # wall time spent training, all resumed parts together
    ended: str = ""  # why `on_log` ended the run early; empty otherwise


Optimizers = dict[str, torch.optim.Optimizer]
#: Called with (step, generator); returns a scalar, or a dict whose `loss` is minimised and whose other entries are
#: logged. A `SplitLoss` may also be split over processes and micro-batches.
Loss = Callable[[int, torch.Generator], "Tensor | dict[str, Tensor]"]


@dataclass(frozen=True)
class Player:
    """A model and what trains it, where two are trained in one run; see `train`.

    The settings of an opponent say rates, moment decays, clipping and seed; it is neither averaged nor sharded.
    """

    model: nn.Module
    loss: Loss | SplitLoss
    settings: TrainSettings


def train(
    model: nn.Module,  # trained in place; with a `SplitLoss` it is moved to Accelerate's device, and back at the end
    loss: Loss | SplitLoss,  # should call `model` itself
    settings: TrainSettings,
    folder: Path | None = None,  # where `state.safetensors` and `log.csv` are kept; None keeps nothing
    *,
    title: str = "training",  # shown beside the progress bar
    progress: bool = True,  # show a progress bar, with the time left
    # Called with each row of the log, in the first process; text that it returns ends the run there
    on_log: Callable[[dict[str, float]], str | None] | None = None,
    opponent: Player | None = None,  # moved in the same steps; its terms are logged too, its state is kept beside
) -> TrainResult:
    """Train `model` to minimise `loss`; with a `folder`, interrupted work is resumed from there.

    Raises ParameterError where the loss cannot be split as settings or processes ask, TrainingError where it was
    not finite for ten steps in a row, CheckpointError where the folder's state is corrupt or of another model.
    """
    players = [*([opponent] if opponent else []), Player(model, loss, settings)]
    for player in players:
        _check_loss(player.loss, player.settings, title)
    first = processes().is_main_process
    home = next(model.parameters()).device
    model.to(processes().device if isinstance(loss, SplitLoss) else home)
    averaged = copy.deepcopy(model).requires_grad_(False) if settings.ema else model
    modules = {"model": model} | ({"averaged": averaged} if settings.ema else {})
    if settings.sharded:
        for module in modules.values():
            shard(module, bf16=settings.bf16)
    if opponent:
        modules["opponent"] = opponent.model.to(next(model.parameters()).device)
    turns = [(player, _optimizers(player.model, player.settings)) for player in players]
    named = {f"opponent_{name}" if player is opponent else name: o for player, own in turns for name, o in own.items()}
    keeper = Keeper(folder, modules, named, settings.save_every_s)
    start = keeper.load()
    bar = tqdm(
        range(start, settings.steps), title, settings.steps, initial=start, disable=not (progress and first),
        mininterval=2.0, ascii=True,
    )  # fmt: skip
    began = time.perf_counter() - keeper.seconds  # earlier parts of the run count
    model.train()
    done, bad, whole_run, ended, spent_s = start, 0, False, "", _spent(began, settings)
    try:
        for step in bar:
            if settings.position(step, spent_s) >= settings.steps:
                break
            terms, finite = _round(turns, step, spent_s)
            bad = 0 if finite else bad + 1
            if bad >= _MOST_BAD_STEPS:
                kept = f" in {folder}" if folder else ""
                raise TrainingError(
                    f"{title}: the loss was not finite for {bad} steps up to step {step}. The last good state is kept"
                    f"{kept}; lower the learning rate ({settings.learning_rate:g}) and run again"
                )
            if settings.ema and finite:
                _average(averaged, model, min(settings.ema, (1 + step) / (10 + step)))
            done, spent_s = step + 1, _spent(began, settings)
            if step % settings.log_every == 0 or settings.position(done, spent_s) >= settings.steps:
                row = {"step": done, **terms, "seconds": round(time.perf_counter() - began, 2)}
                keeper.log.append(row)
                bar.set_postfix_str(f"loss {terms['loss']:.4f}", refresh=False)
                ended = (on_log(row) if on_log and first else None) or ""
                if total({"ended": float(bool(ended))})["ended"]:
                    break
            if not bad:
                keeper.save_if_due(done)
        whole_run = True
    finally:
        bar.close()
        # gathering shards needs every process, and an error in one of them does not wait for the others
        if not bad and done > start and (whole_run or not settings.sharded):
            keeper.save(done)
    if not settings.sharded:
        for module in modules.values():
            module.to(home)
    model.eval()
    return TrainResult(averaged.eval(), keeper.log, time.perf_counter() - began, ended)


def _spent(began: float, settings: TrainSettings) -> float:
    """Seconds since `began`, the same in all processes: they follow the first one's clock."""
    if settings.seconds is None:
        return 0.0
    return total({"spent": time.perf_counter() - began if processes().is_main_process else 0.0})["spent"]


def _check_loss(loss: Loss | SplitLoss, settings: TrainSettings, title: str) -> None:
    count = processes().num_processes
    if (count > 1 or settings.accumulate > 1) and not isinstance(loss, SplitLoss):
        raise ParameterError(
            f"{title}: its loss draws its own batch, which {count} processes and {settings.accumulate} "
            "micro-batches cannot share; pass a SplitLoss, or run one process without accumulation"
        )
    if settings.sharded and settings.muon:
        raise ParameterError(f"{title}: Muon needs whole matrices, which a sharded model has not; set muon=0")


def _round(turns: list[tuple[Player, Optimizers]], step: int, spent_s: float) -> tuple[dict[str, float], bool]:
    """One step of all models: their terms, where names meet the last one's, and whether all were finite.

    All gradients come before any step, so that an interruption leaves no model ahead of the other.
    """
    terms, finite = {}, True
    for player, optimizers in turns:
        rate = player.settings.rate(step, spent_s)
        for group in (group for optimizer in optimizers.values() for group in optimizer.param_groups):
            group["lr"] = rate * group["peak"]
        found, good = _gradients(player, step)
        terms, finite = terms | found, finite and good
    if finite:
        for optimizer in (o for _, optimizers in turns for o in optimizers.values()):
            optimizer.step()
    return terms, finite


def _gradients(player: Player, step: int) -> tuple[dict[str, float], bool]:
    """Clipped gradients of a model's loss over the whole batch; its terms, and whether all is finite."""
    model, settings = player.model, player.settings
    generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) % 2**63)
    model.zero_grad(set_to_none=True)
    if isinstance(player.loss, SplitLoss):
        terms = _backward_in_parts(player.loss, settings, step, generator)
    else:
        terms = _backward(player.loss(step, generator))
    average_gradients(model)
    norm = whole(nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm))
    return terms, bool(torch.isfinite(norm)) and math.isfinite(terms["loss"])


def _backward(found: Tensor | dict[str, Tensor], weight: float = 1.0) -> dict[str, float]:
    """Add the gradients of a loss times `weight`; returns its terms."""
    terms = found if isinstance(found, dict) else {"loss": found}
    (terms["loss"] * weight).backward()
    return {k: float(v.detach() if isinstance(v, Tensor) else v) for k, v in terms.items()}


def _backward_in_parts(
    loss: SplitLoss, settings: TrainSettings, step: int, generator: torch.Generator
) -> dict[str, float]:
    """As `_backward`, of this process's part of a batch; the terms are of the whole batch."""
    state, summed = processes(), {}
    # FSDP averages gradients over processes where `average_gradients` sums them
    factor = state.num_processes if settings.sharded else 1
    batch = loss.draw(step, generator)
    for part, share in split(batch, state.process_index, state.num_processes, settings.accumulate):
        moved = [tensor.to(state.device, non_blocking=True) for tensor in part]
        with torch.autocast(state.device.type, torch.bfloat16, enabled=settings.bf16):
            found = loss.error(*moved)
        for key, value in _backward(found, share * factor).items():
            summed[key] = summed.get(key, 0.0) + share * value
    return total(summed)


def _optimizers(model: nn.Module, settings: TrainSettings) -> Optimizers:
    """AdamW (no weight decay on vectors, a lower rate for the slow prefixes), and Muon where it is asked for."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    matrices = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        slow = name.startswith(settings.slow)
        if settings.muon and parameter.ndim >= 2 and not slow and not any(part in name for part in settings.muon_not):
            matrices.append(parameter)
        else:
            groups.setdefault((parameter.ndim >= 2, slow), []).append(parameter)
    adamw = [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if matrix else 0.0,
            "peak": settings.learning_rate * (settings.slow_rate if slow else 1.0),
        }
        for (matrix, slow), parameters in groups.items()
    ]
    how = {"lr": settings.learning_rate, "betas": settings.betas, "fused": not settings.sharded or None}
    found: Optimizers = {"adamw": torch.optim.AdamW(adamw, **how)}
    if matrices:
        group = {"params": matrices, "weight_decay": settings.weight_decay, "peak": settings.muon}
        found["muon"] = Muon([group], lr=settings.muon, bf16=agreed(faster_in_bfloat16(matrices[0].device)))
    return found


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    ours, theirs = list(averaged.parameters()), list(model.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - decay)
    for mine, other in zip(averaged.buffers(), model.buffers(), strict=False):
        mine.copy_(other)
