"""One loop for regression, adversarial training or both; resumes to the step and stops at NaN.

Paper: adversarial step distillation. Each step draws captions, noises and chords from (seed, step) alone, so a run
that was interrupted repeats what an uninterrupted one would have done. A step whose losses or gradients are not
finite is not taken: the run goes back to the last good snapshot, halves its rates and draws other batches; after a few
such returns it stops with the last good weights in place.

Simplified: single process, float32.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mobivid_core.distill.adversarial import Contest
from mobivid_core.distill.regression import draw_chords, regression_loss
from mobivid_core.distill.settings import DistillSettings
from mobivid_core.distill.trajectory import Trajectories, step_generator
from mobivid_core.errors import ParameterError, TrainingError
from mobivid_core.files import replacing
from mobivid_core.train.muon import Muon, muon_matrices
from mobivid_core.train.state import load_state, save_state

COLUMNS = ("step", "regression", "adversarial", "discriminator", "real_logit", "fake_logit", "r1", "seconds")


class _Progress(nn.Module):
    """Counters that travel with the saved state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("recoveries", torch.zeros((), dtype=torch.int64))


class Distiller:
    """A student in training.

    Attributes:
        student: Trained in place.
        averaged: Its exponential average: the one to use.
        contest: Discriminator and real batches, or None where nothing is adversarial.
        step: Generator updates done.
        log: One row an update, columns `COLUMNS`.
    """

    def __init__(
        self,
        student: nn.Module,
        trajectories: Trajectories,
        settings: DistillSettings,
        *,
        contest: Contest | None = None,
        anchor: Callable[[nn.Module, Trajectories, Tensor, Tensor], Tensor] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Set up, and go on from `folder` if it holds a state.

        Args:
            student: Velocity model on the device to train on.
            trajectories: Guided teacher trajectories.
            settings: See `DistillSettings`.
            contest: Discriminator and real batches; needed when `adversarial_weight` > 0.
            anchor: Another loss on the teacher's chords, called as `regression_loss`, which None takes.
            folder: Where state and log are kept; None keeps nothing.

        Raises:
            ParameterError: The adversarial weight asks for a contest that was not given.
            CheckpointError: The folder's state is corrupt or of another model.
        """
        if settings.adversarial_weight > 0 and contest is None:
            raise ParameterError("adversarial_weight > 0 needs a discriminator and real batches: pass `contest`")
        device = next(student.parameters()).device
        self.student, self.settings, self.folder = student, settings, folder
        self.trajectories = trajectories.to(device)
        self.contest, self.anchor = contest if settings.adversarial_weight > 0 else None, anchor
        self.averaged = copy.deepcopy(student).requires_grad_(False).eval()
        self.log: list[dict[str, float]] = []
        self._progress = _Progress()
        self._modules = {"student": student, "averaged": self.averaged, "progress": self._progress}
        matrices, others = muon_matrices(student) if settings.muon else ([], list(student.parameters()))
        self._optimizers = {"student": torch.optim.AdamW(others, settings.rate, (0.9, 0.99), weight_decay=0.0)}
        if matrices:
            self._optimizers["student_muon"] = Muon(matrices, lr=settings.muon)
        if self.contest is not None:
            self._modules["heads"] = self.contest.heads
            parameters = self.contest.heads.parameters()
            self._optimizers["heads"] = torch.optim.AdamW(
                parameters, settings.discriminator_rate, (0.0, 0.99), weight_decay=0.0
            )
        self.step = load_state(self._state_file, self._modules, self._optimizers) if folder else 0
        if folder:
            self.log = _read_log(folder / "log.csv", self.step)
        self._seconds = self.log[-1]["seconds"] if self.log else 0.0
        self._good = self._snapshot()

    @property
    def recoveries(self) -> int:
        """How often the run went back to a good state."""
        return int(self._progress.recoveries)

    @property
    def _state_file(self) -> Path:
        return Path(self.folder) / "state.safetensors"

    def run(self, until: int | None = None, *, progress: bool = False, title: str = "distilling") -> nn.Module:
        """Train up to step `until` (default: all).

        Returns:
            The averaged student.

        Raises:
            TrainingError: Losses stayed non-finite; the last good state is back in place.
        """
        until = self.settings.steps if until is None else min(until, self.settings.steps)
        self.student.train()
        before = self.log[-1]["seconds"] if self.log else 0.0
        began = time.perf_counter()
        with tqdm(total=until, initial=self.step, desc=title, disable=not progress, mininterval=2.0) as bar:
            while self.step < until and self.settings.done_at(self.step, self._seconds) < 1.0:
                row = self._update()
                if row is None:
                    self._recover()
                    bar.n = self.step
                    continue
                self.step += 1
                self._seconds = before + time.perf_counter() - began
                self.log.append({"step": self.step} | row | {"seconds": round(self._seconds, 2)})
                if self.step % self.settings.snapshot_every == 0 or self.step == until:
                    self._keep()
                bar.update()
            if self.settings.seconds:
                self._keep()
        self.student.eval()
        return self.averaged

    def _update(self) -> dict[str, float] | None:
        """One generator update (and the heads' updates before it); None if anything was not finite."""
        s, row = self.settings, dict.fromkeys(COLUMNS[1:-1], math.nan)
        if self.contest is not None:
            for turn in range(s.discriminator_warmup + 1 if self.step == 0 else 1):
                judged = self._update_heads(turn)
                if judged is None:
                    return None
                row |= judged
        total = torch.zeros((), device=self.trajectories.states.device)
        if s.anchor_weight > 0:
            rows, levels = draw_chords(s.batch, self.trajectories, self._generator(0))
            anchor = (self.anchor or regression_loss)(self.student, self.trajectories, rows, levels)
            total, row["regression"] = total + s.anchor_weight * anchor, anchor.item()
        if self.contest is not None:
            push = self.contest.student_loss(self.student, self._generator(2))
            total, row["adversarial"] = total + s.adversarial_weight * push, push.item()
        decay = min(s.ema, (1 + self.step) / (10 + self.step))
        share = s.share_at(self.step, self._seconds)
        rates = {"student": s.rate * share, "student_muon": s.muon * share}
        if not self._descend("student", total, rates):
            return None
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.student.parameters()), 1 - decay)
        return row

    def _update_heads(self, turn: int) -> dict[str, float] | None:
        """One update of the discriminator; None if it was not finite."""
        total, row = self.contest.heads_loss(self.student, self._generator(1, turn))
        return row if self._descend("heads", total, {"heads": self.settings.discriminator_rate}) else None

    def _descend(self, name: str, loss: Tensor, rates: dict[str, float]) -> bool:
        """Backward and one step of a module's optimisers; False, and no step, if loss or gradients are not finite."""
        module = self._modules[name]
        module.zero_grad(set_to_none=True)
        if not bool(torch.isfinite(loss)):
            return False
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.settings.clip_norm)
        if not bool(torch.isfinite(norm)):
            return False
        for chosen, rate in rates.items():
            if chosen not in self._optimizers:
                continue
            for group in self._optimizers[chosen].param_groups:
                group["lr"] = rate * self._scale
            self._optimizers[chosen].step()
        return True

    def _generator(self, role: int, turn: int = 0) -> torch.Generator:
        """Stream of this step; after a recovery another one, so that the same batch is not met again."""
        return step_generator(self.settings.seed, role, turn, self.step, self.recoveries)

    @property
    def _scale(self) -> float:
        """Rates are halved by each recovery."""
        return 0.5**self.recoveries

    def _snapshot(self) -> dict:
        """A copy of everything that a step changes."""
        return copy.deepcopy(
            {
                "step": self.step,
                "modules": {k: m.state_dict() for k, m in self._modules.items() if k != "progress"},
                "optimizers": {k: o.state_dict() for k, o in self._optimizers.items()},
            }
        )

    def _keep(self) -> None:
        """Take a snapshot if the weights are finite, and save it where there is a folder."""
        if not all(bool(torch.isfinite(p).all()) for m in self._modules.values() for p in m.parameters()):
            self._recover()
            return
        self._good = self._snapshot()
        if self.folder:
            save_state(self._state_file, self.step, self._modules, self._optimizers)
            _write_log(Path(self.folder) / "log.csv", self.log)

    def _recover(self) -> None:
        """Back to the last good state; give up after `most_recoveries` returns."""
        failed = self.step
        self.step = self._good["step"]
        for name, state in self._good["modules"].items():
            self._modules[name].load_state_dict(state)
        for name, state in self._good["optimizers"].items():
            self._optimizers[name].load_state_dict(copy.deepcopy(state))
        self.log = [row for row in self.log if row["step"] <= self.step]
        if self.recoveries >= self.settings.most_recoveries:
            raise TrainingError(
                f"distillation met non-finite values at step {failed} after {self.recoveries} recoveries, each at half "
                f"the rate. The student holds the last good weights, of step {self.step}. Lower `rate` "
                f"({self.settings.rate:g}) or `adversarial_weight` ({self.settings.adversarial_weight:g}) and go on"
            )
        self._progress.recoveries += 1


def _write_log(path: Path, log: list[dict[str, float]]) -> None:
    """The whole log, atomically."""
    with replacing(path) as partial, partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(log)


def _read_log(path: Path, step: int) -> list[dict[str, float]]:
    """Rows up to `step`; later ones are done again."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
    return [row for row in rows if row["step"] <= step]
