"""One training loop for every stage: resumable to the step, averaged weights, a CSV log, progress.

Randomness is a function of (seed, step) alone: the loss gets a fresh generator each step, so that a run that
was interrupted and resumed draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.errors import TrainingError
from mobivid_core.files import replacing
from mobivid_core.training.muon import Muon
from mobivid_core.training.state import load_state, save_state

_MOST_BAD_STEPS = 10


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        hold: Share of the steps that stay at the peak before the decay; until then, a longer schedule is the same run.
        final_rate: Rate at the end as a share of the peak (cosine decay).
        weight_decay: AdamW's decoupled weight decay.
        betas: AdamW's moment decays.
        clip_norm: Gradient norm is clipped to this.
        ema: Decay of the averaged weights; 0 keeps none.
        save_every_s: Seconds between saved states.
        log_every: Steps between rows of the log.
        seed: Seed of all randomness.
        slow: Parameter-name prefixes trained at `slow_rate` times the rate.
        slow_rate: See `slow`.
        muon: Peak rate of Muon for weight matrices; 0 trains everything with AdamW.
        muon_not: Parts of parameter names that stay with AdamW all the same: inputs, outputs, embeddings.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    hold: float = 0.0
    final_rate: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema: float = 0.999
    save_every_s: float = 60.0
    log_every: int = 20
    seed: int = 0
    slow: tuple[str, ...] = ()
    slow_rate: float = 1 / 30
    muon: float = 0.0
    muon_not: tuple[str, ...] = ()


@dataclass
class TrainResult:
    """What a training run left.

    Attributes:
        averaged: The model with averaged weights (the model itself where none were kept).
        log: Rows `step, loss, ..., seconds`.
        seconds: Wall time spent training, all resumed parts together.
    """

    averaged: nn.Module
    log: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


Optimizers = dict[str, torch.optim.Optimizer]
Loss = Callable[[int, torch.Generator], "Tensor | dict[str, Tensor]"]


def train(
    model: nn.Module,
    loss: Loss,
    settings: TrainSettings,
    folder: Path | None = None,
    *,
    title: str = "training",
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> TrainResult:
    """Train `model` to minimise `loss`; with a `folder`, interrupted work is resumed from there.

    Args:
        model: Trained in place.
        loss: Called with (step, generator); returns a scalar, or a dict whose `loss` is minimised and whose
            other entries are logged. It should call `model` itself.
        settings: See `TrainSettings`.
        folder: Where `state.safetensors` and `log.csv` are kept; None keeps nothing.
        title: Shown beside the progress bar.
        progress: Show a progress bar.
        on_log: Called with each row of the log.

    Raises:
        TrainingError: The loss was not finite for ten steps in a row.
        CheckpointError: The folder's state is corrupt or of another model.
    """
    optimizers = _optimizers(model, settings)
    averaged = copy.deepcopy(model).requires_grad_(False) if settings.ema else model
    modules = {"model": model} | ({"averaged": averaged} if settings.ema else {})
    state_file, log_file = (folder / "state.safetensors", folder / "log.csv") if folder else (None, None)
    start = load_state(state_file, modules, optimizers) if folder else 0
    result = TrainResult(averaged, _read_log(log_file, start) if folder else [])
    before = result.log[-1]["seconds"] if result.log else 0.0
    began = saved = time.perf_counter()
    bar = tqdm(
        range(start, settings.steps),
        initial=start,
        total=settings.steps,
        desc=title,
        disable=not progress,
        mininterval=2.0,
        ascii=True,
    )
    model.train()
    done, bad = start, 0
    try:
        for step in bar:
            terms, finite = _step(model, loss, optimizers, settings, step)
            bad = 0 if finite else bad + 1
            if bad >= _MOST_BAD_STEPS:
                raise TrainingError(
                    f"{title}: the loss was not finite for {bad} steps up to step {step}. The last good state is kept"
                    f"{f' in {folder}' if folder else ''}; lower the learning rate ({settings.learning_rate:g}) "
                    "and run again"
                )
            if settings.ema and finite:
                _average(averaged, model, min(settings.ema, (1 + step) / (10 + step)))
            done = step + 1
            now = time.perf_counter()
            if step % settings.log_every == 0 or done == settings.steps:
                row = {"step": done, **terms, "seconds": round(before + now - began, 2)}
                result.log.append(row)
                bar.set_postfix_str(f"loss {terms['loss']:.4f}", refresh=False)
                if on_log:
                    on_log(row)
            if folder and now - saved > settings.save_every_s and not bad:
                _save(state_file, log_file, done, modules, optimizers, result.log)
                saved = time.perf_counter()
    finally:
        bar.close()
        if folder and not bad and done > start:
            _save(state_file, log_file, done, modules, optimizers, result.log)
    result.seconds = before + time.perf_counter() - began
    model.eval()
    averaged.eval()
    return result


def _step(
    model: nn.Module, loss: Loss, optimizers: Optimizers, settings: TrainSettings, step: int
) -> tuple[dict[str, float], bool]:
    scale = _rate(step, settings)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = scale * group["peak"]
    generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) % 2**63)
    terms = loss(step, generator)
    terms = terms if isinstance(terms, dict) else {"loss": terms}
    model.zero_grad(set_to_none=True)
    terms["loss"].backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(terms["loss"].detach()))
    if finite:
        for optimizer in optimizers.values():
            optimizer.step()
    return {k: float(v.detach() if isinstance(v, Tensor) else v) for k, v in terms.items()}, finite


def _rate(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, the peak as long as it is held, then a cosine down to `final_rate`."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    start = max(settings.warmup, round(settings.hold * settings.steps))
    done = max(0.0, (step - start) / max(1, settings.steps - start))
    return settings.final_rate + (1 - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def _optimizers(model: nn.Module, settings: TrainSettings) -> Optimizers:
    """AdamW (no weight decay on vectors, a lower rate for the slow prefixes), and Muon where it is asked for."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    matrices = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        slow = bool(settings.slow) and name.startswith(settings.slow)
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
    found: Optimizers = {"adamw": torch.optim.AdamW(adamw, lr=settings.learning_rate, betas=settings.betas)}
    if matrices:
        group = {"params": matrices, "weight_decay": settings.weight_decay, "peak": settings.muon}
        found["muon"] = Muon([group], lr=settings.muon)
    return found


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    ours, theirs = list(averaged.parameters()), list(model.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - decay)
    for mine, other in zip(averaged.buffers(), model.buffers(), strict=False):
        mine.copy_(other)


def _save(state_file: Path, log_file: Path, step: int, modules: dict, optimizers: Optimizers, log: list) -> None:
    save_state(state_file, step, modules, optimizers)
    with replacing(log_file) as part, part.open("w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(log[0]) if log else ["step"])
        writer.writeheader()
        writer.writerows(log)


def _read_log(log_file: Path, start: int) -> list[dict[str, float]]:
    """Rows up to the resumed step; later ones belong to steps that will be done again."""
    if not log_file.exists():
        return []
    with log_file.open(newline="") as lines:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    return [row for row in rows if row["step"] <= start]
