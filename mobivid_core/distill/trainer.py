"""One loop for regression, adversarial training or both; resumes to the step and recovers from NaN.

Paper: adversarial step distillation. Each step draws captions, noises and chords from (seed, step) alone, so that a
resumed run equals an uninterrupted one. A step whose losses or gradients are not finite is not taken: the run returns
to the last good snapshot, halves its rates and draws other batches. After `most_recoveries` such returns it stops with
the last good weights in place.

Simplified: single process, float32.
"""

from __future__ import annotations

import copy
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
from mobivid_core.train.muon import Muon, muon_matrices
from mobivid_core.train.state import Keeper

#: What an update logs, between its step and the seconds spent.
TERMS = ("regression", "adversarial", "discriminator", "real_logit", "fake_logit", "r1")


class Distiller:
    """A student in training.

    Attributes:
        student: Trained in place.
        averaged: Its exponential average: the one to use.
        contest: Discriminator and real batches, or None where nothing is adversarial.
        step: Generator updates done.
    """

    def __init__(
        self,
        student: nn.Module,  # velocity model on the device to train on
        trajectories: Trajectories,  # guided teacher trajectories
        settings: DistillSettings,
        *,
        contest: Contest | None = None,  # discriminator and real batches; needed when `adversarial_weight` > 0
        # Loss on the teacher's chords instead of `regression_loss`, with the same arguments
        anchor: Callable[[nn.Module, Trajectories, Tensor, Tensor], Tensor] | None = None,
        folder: Path | None = None,  # keeps state and log
    ) -> None:
        """Set up, and resume from the state in `folder` if there is one.

        Raises:
            ParameterError: The adversarial weight asks for a contest that was not given.
            CheckpointError: The folder's state is corrupt or of another model.
        """
        if settings.adversarial_weight > 0 and contest is None:
            raise ParameterError("adversarial_weight > 0 needs a discriminator and real batches: pass `contest`")
        self.student, self.settings, self.anchor = student, settings, anchor
        self.trajectories = trajectories.to(next(student.parameters()).device)
        self.contest = contest if settings.adversarial_weight > 0 else None
        self.averaged = copy.deepcopy(student).requires_grad_(False).eval()
        self._progress = nn.Module()  # a counter that is saved with the state
        self._progress.register_buffer("recoveries", torch.zeros((), dtype=torch.int64))
        self._modules = {"student": student, "averaged": self.averaged, "progress": self._progress}
        matrices, others = muon_matrices(student) if settings.muon else ([], list(student.parameters()))
        self._optimizers = {"student": torch.optim.AdamW(others, settings.rate, (0.9, 0.99), weight_decay=0.0)}
        if matrices:
            self._optimizers["student_muon"] = Muon(matrices, lr=settings.muon)
        if self.contest is not None:
            self._modules["heads"] = self.contest.heads
            self._optimizers["heads"] = torch.optim.AdamW(
                self.contest.heads.parameters(), settings.discriminator_rate, (0.0, 0.99), weight_decay=0.0
            )
        self._keeper = Keeper(folder, self._modules, self._optimizers, every_s=0.0)
        self.step = self._keeper.load()
        self._seconds = self._keeper.seconds
        self._good = self._snapshot()

    @property
    def log(self) -> list[dict[str, float]]:
        """One row an update: step, `TERMS`, seconds."""
        return self._keeper.log

    @property
    def recoveries(self) -> int:
        """How often the run returned to a good state; each return halves the rates."""
        return int(self._progress.recoveries)

    def run(self, until: int | None = None, *, progress: bool = False, title: str = "distilling") -> nn.Module:
        """Train up to step `until` (default: all) and return the averaged student.

        Raises:
            TrainingError: Losses stayed non-finite; the last good state is back in place.
        """
        until = self.settings.steps if until is None else min(until, self.settings.steps)
        self.student.train()
        before, began = self._keeper.seconds, time.perf_counter()
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
        """The heads' updates and one generator update; None if anything was not finite."""
        s, row = self.settings, dict.fromkeys(TERMS, math.nan)
        if self.contest is not None:
            for turn in range(s.discriminator_warmup + 1 if self.step == 0 else 1):
                loss, judged = self.contest.heads_loss(self.student, self._generator(1, turn))
                if not self._descend("heads", loss, {"heads": s.discriminator_rate}):
                    return None
                row |= judged
        total = torch.zeros((), device=self.trajectories.device)
        if s.anchor_weight > 0:
            rows, levels = draw_chords(s.batch, self.trajectories, self._generator(0))
            anchor = (self.anchor or regression_loss)(self.student, self.trajectories, rows, levels)
            total, row["regression"] = total + s.anchor_weight * anchor, anchor.item()
        if self.contest is not None:
            push = self.contest.student_loss(self.student, self._generator(2))
            total, row["adversarial"] = total + s.adversarial_weight * push, push.item()
        share = s.share_at(self.step, self._seconds)
        if not self._descend("student", total, {"student": s.rate * share, "student_muon": s.muon * share}):
            return None
        decay = min(s.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.student.parameters()), 1 - decay)
        return row

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
            if chosen in self._optimizers:
                for group in self._optimizers[chosen].param_groups:
                    group["lr"] = rate * 0.5**self.recoveries
                self._optimizers[chosen].step()
        return True

    def _generator(self, role: int, turn: int = 0) -> torch.Generator:
        """Random stream of this step; another one after a recovery, so that the same batch is not drawn again."""
        return step_generator(self.settings.seed, role, turn, self.step, self.recoveries)

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
        """Take a snapshot and save it if the weights are finite; otherwise go back to the last one."""
        if not all(bool(torch.isfinite(p).all()) for m in self._modules.values() for p in m.parameters()):
            self._recover()
            return
        self._good = self._snapshot()
        self._keeper.save(self.step)

    def _recover(self) -> None:
        """Back to the last good state; give up after `most_recoveries` returns."""
        failed = self.step
        self.step = self._good["step"]
        for name, state in self._good["modules"].items():
            self._modules[name].load_state_dict(state)
        for name, state in self._good["optimizers"].items():
            self._optimizers[name].load_state_dict(copy.deepcopy(state))
        self._keeper.log = [row for row in self.log if row["step"] <= self.step]
        if self.recoveries >= self.settings.most_recoveries:
            raise TrainingError(
                f"distillation met non-finite values at step {failed} after {self.recoveries} recoveries, each at half "
                f"the rate. The student holds the last good weights, of step {self.step}. Lower `rate` "
                f"({self.settings.rate:g}) or `adversarial_weight` ({self.settings.adversarial_weight:g}) and go on"
            )
        self._progress.recoveries += 1
