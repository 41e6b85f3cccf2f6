"""Trains the judge: `mobivid train judge --profile scratch` makes the shipped one again.

Clips of the split `judge` are rendered on the fly and lightly degraded (blur, noise, coarse blocks, smeared
time), so that the judge reads codec reconstructions and generated clips as fairly as clean ones. The appearance tower
first learns from single frames, which are 17 times cheaper to draw: shapes need many examples. Short enough (minutes)
that it restarts rather than resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core import artifacts
from mobivid_core.command import CommandParser, at_least_one, run_command
from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY, label_indices
from mobivid_core.data.render import render_clips
from mobivid_core.errors import TrainingError
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.profiles import Profile, add_profile, get_profile
from mobivid_core.train import precision
from mobivid_core.train.judge_clips import VIEW_SIZE, ClipPool, augment

#: Steps on single frames for each step on clips.
IMAGE_STEPS = 5
#: Called with each row of the log.
Progress = Callable[[dict], None]
#: Shape is the slow one: drawings of one object differ more between artists than some objects do from each other.
_LOSS_WEIGHTS = {"shape": 2.0, "colour": 0.5, "motion": 1.0, "background": 1.0}


def learn_looks(
    judge: Judge, profile: Profile, *, steps: int, batch: int, seed: int, progress: Progress | None
) -> None:
    """Train the appearance tower on single frames, with heads of its own that are dropped; ten rows of progress."""
    device, sizes = judge.device, tuple(sorted({VIEW_SIZE, profile.size}))
    pool = ClipPool(1, sizes, 6144 if profile.meaningful else 4 * batch, fresh=0.4, device=device)
    rng, generator = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(seed + 1)
    looks = [name for name in ATTRIBUTES if name != "motion"]
    heads = nn.ModuleDict({name: nn.Linear(8 * judge.config.width, len(VOCABULARY[name])) for name in looks}).to(device)
    parameters = [*judge.appearance.parameters(), *heads.parameters()]

    def read(frames: Tensor) -> dict[str, Tensor]:
        seen = judge.look(frames.contiguous(memory_format=torch.channels_last_3d))
        return {name: head(seen) for name, head in heads.items()}

    judge.train()
    for step, loss in _fitting(read, parameters, pool, rng, generator, steps=steps, batch=batch, rate=3e-3):
        if progress and _due(step, steps):
            progress({"image_step": step, "image_loss": loss})


def _fitting(
    read: Callable[[Tensor], dict[str, Tensor]],
    parameters: Iterable[nn.Parameter],
    pool: ClipPool,
    rng: np.random.Generator,
    generator: torch.Generator,
    *,
    steps: int,
    batch: int,
    rate: float,
) -> Iterator[tuple[int, float]]:
    """Train parameters so that `read` finds the labels of degraded clips; yields each step from 1, and its loss."""
    parameters = list(parameters)
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.2)
    for step in range(1, steps + 1):
        clips, labels = (x.to(pool.device) for x in augment(*pool.draw(batch, rng), generator))
        loss = _loss(read(clips), labels)
        if not torch.isfinite(loss):
            raise TrainingError(f"the judge's loss became {loss.item()}; train it again with another seed")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        yield step, loss.item()


def _due(step: int, steps: int) -> bool:
    """Whether a step is reported: ten of a run, and the last."""
    return step % max(1, steps // 10) == 0 or step == steps


def _loss(logits: dict[str, Tensor], labels: Tensor) -> Tensor:
    terms = [
        _LOSS_WEIGHTS[name] * F.cross_entropy(values, labels[:, ATTRIBUTES.index(name)], label_smoothing=0.02)
        for name, values in logits.items()
    ]
    return torch.stack(terms).sum()


def train_judge(
    profile: Profile, *, seed: int = 0, device: torch.device | str = "cpu", progress: Progress | None = None
) -> tuple[Judge, pd.DataFrame]:
    """Train a judge: its appearance tower on single frames, then all of it for `profile.judge_steps` steps on clips.

    Returns it in evaluation mode, and its log (step, loss, val_<attribute>, val_all), each row of which `progress` got.
    A loss that becomes non-finite is a `TrainingError`.
    """
    torch.manual_seed(seed)
    steps, batch = profile.judge_steps, min(32, profile.batch)
    judge = Judge().to(memory_format=torch.channels_last_3d).to(device)
    learn_looks(judge, profile, steps=IMAGE_STEPS * steps, batch=2 * batch, seed=seed, progress=progress)
    sizes, capacity = tuple(sorted({VIEW_SIZE, profile.size})), 1024 if profile.meaningful else 4 * batch
    pool = ClipPool(profile.frames, sizes, capacity, device=device)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    checked = range(256 if profile.meaningful else batch)
    held_out = render_clips("val", checked, frames=profile.frames, size=profile.size)
    rows = []
    judge.train()
    sizes = {"steps": steps, "batch": batch, "rate": 2e-3}
    for step, loss in _fitting(lambda x: judge(x).logits, judge.parameters(), pool, rng, generator, **sizes):
        if _due(step, steps):
            right = accuracy(judge.predict(held_out.clips), label_indices(held_out.labels))
            rows.append({"step": step, "loss": loss} | {f"val_{k}": v.mean().item() for k, v in right.items()})
            if progress:
                progress(rows[-1])
    return judge.eval(), pd.DataFrame(rows)


def measure(judge: Judge, *, frames: int, size: int, clips: int = 512) -> pd.DataFrame:
    """The judge's own accuracy on clean clips of `val` and `test`: one row a split."""
    rows = []
    for split in ("val", "test"):
        right = []
        for start in range(0, clips, 64):
            drawn = render_clips(split, range(start, min(start + 64, clips)), frames=frames, size=size)
            right.append(accuracy(judge.predict(drawn.clips), label_indices(drawn.labels)))
        share = {name: torch.cat([part[name] for part in right]).mean().item() for name in right[0]}
        rows.append({"clips": f"{split} ({clips})"} | share)
    return pd.DataFrame(rows)


def publish_judge(
    profile: Profile,
    *,
    seed: int = 0,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Judge:
    """Train a judge, measure its own accuracy and save it in `folder`, None for the stage `judge` of the run."""
    judge, log = train_judge(profile, seed=seed, device=device, progress=progress)
    measured = measure(judge, frames=profile.frames, size=profile.size, clips=512 if profile.meaningful else 16)
    with artifacts.publish("judge", profile.name) if folder is None else nullcontext(folder) as place:
        artifacts.save_model(judge, place)
        log.to_csv(place / "log.csv", index=False)
        measured.to_csv(place / "accuracy.csv", index=False)
    if folder is not None:
        artifacts.write_stamp(folder, "judge")
    return judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: train the judge of a profile and publish it; returns the exit status."""
    parser = CommandParser("train judge", main.__doc__)
    add_profile(parser, "scratch")
    parser.add_argument("--steps", type=at_least_one, help="instead of the profile's")
    parser.add_seed()
    parser.add_out("folder to write (default: the run's stage `judge`)")
    precision.add_argument(parser)
    return run_command(_train_and_publish, parser, arguments)


def _train_and_publish(arguments: argparse.Namespace) -> None:
    profile = get_profile(arguments.profile)
    bf16 = precision.asked(arguments.bf16, precision.CONVOLUTIONAL)
    with precision.whole_training("cpu", bf16):
        publish_judge(
            replace(profile, judge_steps=arguments.steps or profile.judge_steps),
            seed=arguments.seed,
            folder=arguments.out,
            progress=lambda row: print("  ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True),
        )
