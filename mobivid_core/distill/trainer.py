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
        # Loss on the teacher's chords, with the arguments of `regression_loss`, which None stands for
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
        self._modules = {"student": student, "averaged": self.averaged}
        matrices, others = muon_matrices(student) if settings.muon else ([], list(student.parameters()))
        self._optimizers = {"student": torch.optim.AdamW(others, settings.rate, (0.9, 0.99), weight_decay=0.0)}
        if matrices:
            self._optimizers["student_muon"] = Muon(matrices, lr=settings.muon)
        if self.contest is not None:
            heads, rate = self.contest.heads, settings.discriminator_rate
            self._modules["heads"] = heads
            self._optimizers["heads"] = torch.optim.AdamW(heads.parameters(), rate, (0.0, 0.99), weight_decay=0.0)
        self._keeper = Keeper(folder, self._modules | {"progress": self._progress}, self._optimizers, every_s=0.0)
        self.step = self._keeper.load()
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
        s = self.settings
        until = s.steps if until is None else min(until, s.steps)
        self.student.train()
        began = time.perf_counter() - self._keeper.seconds
        with tqdm(total=until, initial=self.step, desc=title, disable=not progress, mininterval=2.0) as bar:
            while self.step < until and s.done_at(self.step, self._keeper.seconds) < 1.0:
                row = self._update()
                if row is None:
                    self._recover()
                else:
                    self.step += 1
                    self.log.append({"step": self.step, **row, "seconds": round(time.perf_counter() - began, 2)})
                    if self.step % s.snapshot_every == 0 or self.step == until:
                        self._keep()
                bar.update(self.step - bar.n)
            if s.seconds:
                self._keep()
        self.student.eval()
        return self.averaged

    def _update(self) -> dict[str, float] | None:
        """The heads' updates and one generator update; None if anything was not finite."""
        s, row = self.settings, dict.fromkeys(TERMS, math.nan)
        if self.contest is not None:
            for turn in range(s.discriminator_warmup + 1 if self.step == 0 else 1):
                terms = self.contest.heads_terms(self.student, *self.contest.draw(self._generator(1, turn)))
                if not self._descend("heads", terms.pop("loss"), {"heads": s.discriminator_rate}):
                    return None
                row |= {name: value.item() for name, value in terms.items()}
        total = torch.zeros((), device=self.trajectories.device)
        if s.anchor_weight > 0:
            chords = draw_chords(s.batch, self.trajectories, self._generator(0))
            anchor = (self.anchor or regression_loss)(self.student, self.trajectories, *chords)
            total, row["regression"] = total + s.anchor_weight * anchor, anchor.item()
        if self.contest is not None:
            push = self.contest.student_term(self.student, *self.contest.draw(self._generator(2)))
            total, row["adversarial"] = total + s.adversarial_weight * push, push.item()
        share = s.share_at(self.step, self._keeper.seconds)
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
        for optimizer, rate in ((self._optimizers[k], rate) for k, rate in rates.items() if k in self._optimizers):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5**self.recoveries
            optimizer.step()
        return True

    def _generator(self, role: int, turn: int = 0) -> torch.Generator:
        """Random stream of this step; another one after a recovery, so that the same batch is not drawn again."""
        return step_generator(self.settings.seed, role, turn, self.step, self.recoveries)

    def _snapshot(self) -> tuple[int, list[dict]]:
        """The step, and a copy of everything that it changes."""
        parts = (*self._modules.values(), *self._optimizers.values())
        return self.step, [copy.deepcopy(part.state_dict()) for part in parts]

    def _keep(self) -> None:
        """Take a snapshot and save it if the weights are finite; otherwise go back to the last one."""
        if not all(bool(torch.isfinite(p).all()) for m in self._modules.values() for p in m.parameters()):
            self._recover()
            return
        self._good = self._snapshot()
        self._keeper.save(self.step)

    def _recover(self) -> None:
        """Back to the last good state; give up after `most_recoveries` returns."""
        failed, (self.step, states) = self.step, self._good
        for part, state in zip((*self._modules.values(), *self._optimizers.values()), states, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        self._keeper.log = [row for row in self.log if row["step"] <= self.step]
        if self.recoveries >= self.settings.most_recoveries:
            raise TrainingError(
                f"distillation met non-finite values at step {failed} after {self.recoveries} recoveries, each at half "
                f"the rate. The student holds the last good weights, of step {self.step}. Lower `rate` "
                f"({self.settings.rate:g}) or `adversarial_weight` ({self.settings.adversarial_weight:g}) and go on"
            )
        self._progress.recoveries += 1
