"""Trains the judge.

Clips of the split `judge` are rendered on the fly and lightly degraded (blur, noise, coarse blocks, smeared
time), so that the judge reads codec reconstructions and generated clips as fairly as clean ones. The appearance tower
first learns from single frames, which are 17 times cheaper to draw: shapes need many examples. Short enough (minutes)
that it restarts rather than resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core import artifacts
from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY, label_indices
from mobivid_core.data.pool import to_bytes, to_float
from mobivid_core.data.render import RenderedClips, render_clips
from mobivid_core.errors import TrainingError
from mobivid_core.measure.judge import Judge, accuracy
from mobivid_core.profiles import Profile

#: Side of the clips that the judge sees.
VIEW_SIZE = 64
_MIRRORED = {"left": "right", "right": "left"}
_REVERSED = _MIRRORED | {"up": "down", "down": "up", "growing": "shrinking", "shrinking": "growing"}
#: Steps on single frames for each step on clips.
IMAGE_STEPS = 5
#: Called with each row of the log.
Progress = Callable[[dict], None]
#: Shape is the slow one: drawings of one object differ more between artists than some objects do from each other.
_LOSS_WEIGHTS = {"shape": 2.0, "colour": 0.5, "motion": 1.0, "background": 1.0}


class ClipPool:
    """A rolling store of rendered clips: each batch mixes a few fresh ones with re-used ones.

    Rendering costs more than a training step; the augmentation makes a re-used clip new again.
    """

    def __init__(
        self,
        size: int,  # side of a clip in pixels; half of them are rendered at 64, and all are pooled to that
        frames: int,
        capacity: int,  # clips kept, as bytes on the CPU
        fresh: float,  # share of a batch that is rendered for it
        device: torch.device | str = "cpu",  # where clips are rendered
    ) -> None:
        self.sizes, self.frames, self.capacity = sorted({VIEW_SIZE, size}), frames, capacity
        self.fresh, self.device, self.rendered = fresh, device, 0
        self._clips = torch.empty(capacity, 3, frames, VIEW_SIZE, VIEW_SIZE, dtype=torch.uint8)
        self._labels = torch.empty(capacity, len(ATTRIBUTES), dtype=torch.long)

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of clips (B, 3, T, 64, 64) float32 in [-1, 1] and labels (B, 4) int64."""
        new = batch if self.rendered < batch else max(1, round(self.fresh * batch))
        slots = [(self.rendered + i) % self.capacity for i in range(new)]
        size = self.sizes[self.rendered // new % len(self.sizes)]
        indices = range(self.rendered, self.rendered + new)
        drawn = render_clips("judge", indices, frames=self.frames, size=size, device=self.device)
        self._clips[slots] = to_bytes(F.adaptive_avg_pool3d(drawn.clips, (self.frames, VIEW_SIZE, VIEW_SIZE)).cpu())
        self._labels[slots] = label_indices(drawn.labels)
        self.rendered += new
        held = min(self.rendered, self.capacity)
        chosen = np.concatenate([slots, rng.choice(held, batch - new)]).astype(np.int64)
        return to_float(self._clips[chosen]), self._labels[chosen].clone()


def augment(clips: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, reverse and degrade clips (B, 3, T, H, W) in [-1, 1]; labels (B, 4) follow.

    A mirrored clip swaps left and right, a reversed one also swaps up and down, growing and shrinking.
    """
    clips, labels = clips.clone(), labels.clone()
    motion, names = ATTRIBUTES.index("motion"), VOCABULARY["motion"]
    for axis, swap in ((4, _MIRRORED), (2, _REVERSED)):
        chosen = torch.rand(len(clips), generator=generator) < 0.5
        clips[chosen] = clips[chosen].flip(axis)
        turned = torch.tensor([names.index(swap.get(name, name)) for name in names])
        labels[chosen, motion] = turned[labels[chosen, motion]]
    return torch.stack([_degrade(clip, generator) for clip in clips]), labels


def _degrade(clip: Tensor, generator: torch.Generator) -> Tensor:
    """One clip (3, T, H, W), degraded by a random subset of: coarse blocks, blur, smeared time, noise."""
    draw = torch.rand(8, generator=generator).tolist()
    out = clip[None]
    shape = out.shape[2:]
    if draw[0] < 0.3:
        factor = 2 if draw[1] < 0.6 else 4
        coarse = F.interpolate(F.avg_pool3d(out, (1, factor, factor)), shape, mode="trilinear")
        out = out.lerp(coarse, 0.4 + 0.6 * draw[2] if factor == 2 else 0.7 * draw[2])
    if draw[3] < 0.3:
        out = F.avg_pool3d(F.pad(out, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
    if draw[4] < 0.3:
        out = out.lerp(F.avg_pool3d(F.pad(out, (0, 0, 0, 0, 1, 1), mode="replicate"), (3, 1, 1), stride=1), draw[5])
    if draw[6] < 0.3:
        blocks = torch.randn(1, 3, 3, 8, 8, generator=generator)
        out = out + 0.12 * draw[7] * F.interpolate(blocks, shape, mode="nearest")
    noise = 0.12 * draw[1] ** 2 * torch.randn(out.shape, generator=generator)
    return (out + noise).clamp(-1, 1)[0]


def _learn_looks(
    judge: Judge, profile: Profile, *, steps: int, batch: int, seed: int, progress: Progress | None
) -> None:
    """Train the appearance tower on single frames, with heads of its own that are dropped."""
    pool = ClipPool(profile.size, 1, 6144 if profile.meaningful else 4 * batch, 0.4, judge.device)
    rng, generator = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(seed + 1)
    looks = [name for name in ATTRIBUTES if name != "motion"]
    heads = nn.ModuleDict({name: nn.Linear(8 * judge.config.width, len(VOCABULARY[name])) for name in looks})
    parameters = [*judge.appearance.parameters(), *heads.to(judge.device).parameters()]

    def read(frames: Tensor) -> dict[str, Tensor]:
        seen = judge.look(frames.contiguous(memory_format=torch.channels_last_3d))
        return {name: head(seen) for name, head in heads.items()}

    judge.train()
    for step, loss in _fitting(read, parameters, pool, rng, generator, steps=steps, batch=batch, rate=3e-3):
        if progress:
            progress({"image_step": step, "image_loss": loss})


def _fitting(
    read: Callable[[Tensor], dict[str, Tensor]], parameters: list[nn.Parameter], pool: ClipPool,
    rng: np.random.Generator, generator: torch.Generator, *, steps: int, batch: int, rate: float,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Train parameters so that `read` finds the labels of degraded clips; yields ten steps, and the last, with loss."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.2)
    for step in range(1, steps + 1):
        clips, labels = (x.to(pool.device) for x in augment(*pool.draw(batch, rng), generator))
        terms = [
            _LOSS_WEIGHTS[name] * F.cross_entropy(values, labels[:, ATTRIBUTES.index(name)], label_smoothing=0.02)
            for name, values in read(clips).items()
        ]
        loss = torch.stack(terms).sum()
        if not torch.isfinite(loss):
            raise TrainingError(f"the judge's loss became {loss.item()}; train it again with another seed")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 10) == 0 or step == steps:
            yield step, loss.item()


def _clean(split: str, count: int, profile: Profile) -> Iterator[RenderedClips]:
    for start in range(0, count, 64):
        indices = range(start, min(start + 64, count))
        yield render_clips(split, indices, frames=profile.frames, size=profile.size)


def _accuracy(judge: Judge, clips: Iterable[RenderedClips]) -> dict[str, float]:
    """Share of clips that the judge reads right, by attribute and in `all` of them."""
    right = [accuracy(judge.predict(drawn.clips), label_indices(drawn.labels)) for drawn in clips]
    return {name: torch.cat([part[name] for part in right]).mean().item() for name in right[0]}


def publish_judge(
    profile: Profile,
    *,
    seed: int = 0,
    folder: Path | None = None,  # where to save it; None: the stage `judge` of the run
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Judge:
    """Train a judge: its appearance tower on single frames, then all of it for `profile.judge_steps` steps on clips.

    It is saved with its log (step, loss, val_<attribute>, val_all), each row of which `progress` got, and its accuracy
    on clean clips. A loss that becomes non-finite is a `TrainingError`.
    """
    torch.manual_seed(seed)
    steps, batch = profile.judge_steps, min(32, profile.batch)
    judge = Judge().to(memory_format=torch.channels_last_3d).to(device)
    _learn_looks(judge, profile, steps=IMAGE_STEPS * steps, batch=2 * batch, seed=seed, progress=progress)
    pool = ClipPool(profile.size, profile.frames, 1024 if profile.meaningful else 4 * batch, 0.2, device)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    held_out, rows = list(_clean("val", 256 if profile.meaningful else batch, profile)), []
    judge.train()
    how = {"steps": steps, "batch": batch, "rate": 2e-3}
    for step, loss in _fitting(lambda x: judge(x).logits, list(judge.parameters()), pool, rng, generator, **how):
        right = _accuracy(judge, held_out)
        rows.append({"step": step, "loss": loss} | {f"val_{name}": share for name, share in right.items()})
        if progress:
            progress(rows[-1])
    judge.eval()
    n = 512 if profile.meaningful else 16
    measured = [{"clips": f"{s} ({n})"} | _accuracy(judge, _clean(s, n, profile)) for s in ("val", "test")]
    with artifacts.publish("judge", profile.name) if folder is None else nullcontext(folder) as place:
        artifacts.save_model(judge, place)
        pd.DataFrame(rows).to_csv(place / "log.csv", index=False)
        pd.DataFrame(measured).to_csv(place / "accuracy.csv", index=False)
    if folder is not None:
        artifacts.write_stamp(folder, "judge")
    return judge
