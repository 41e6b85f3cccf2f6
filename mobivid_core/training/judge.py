"""Trains the judge: `python -m mobivid_core.training.judge --profile laptop`.

Clips of the split `judge` are rendered on the fly and lightly degraded (blur, noise, coarse blocks, smeared
time), so that the judge reads codec reconstructions and generated clips as fairly as clean ones. Short
enough (a few CPU-minutes) that it restarts rather than resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY, label_indices
from mobivid_core.data.render import render_clips
from mobivid_core.errors import TrainingError
from mobivid_core.evaluate.judge import Judge, accuracy
from mobivid_core.profiles import Profile, get_profile

_SIZE = 64
#: Shape is the slow one: sprites of neighbouring classes differ by a few pixels.
_LOSS_WEIGHTS = {"shape": 2.0, "colour": 0.5, "motion": 1.0, "background": 1.0}
_REVERSED = {"left": "right", "right": "left", "up": "down", "down": "up", "growing": "shrinking", "shrinking": "growing"}
_MIRRORED = {"left": "right", "right": "left"}


@dataclass
class ClipPool:
    """A rolling store of rendered clips: each batch mixes a few fresh ones with re-used ones.

    Rendering costs more than a training step; the augmentation makes a re-used clip new again.

    Attributes:
        frames: Frames a clip.
        render_sizes: Sizes to render at before pooling to 64 x 64, taken in turn.
        capacity: Clips kept, as bytes.
        fresh: Share of a batch that is rendered for it.
    """

    frames: int = 17
    render_sizes: tuple[int, ...] = (64, 128)
    capacity: int = 1024
    fresh: float = 0.2
    split: str = "judge"

    def __post_init__(self) -> None:
        self._clips = torch.empty(self.capacity, 3, self.frames, _SIZE, _SIZE, dtype=torch.uint8)
        self._labels = torch.empty(self.capacity, len(ATTRIBUTES), dtype=torch.long)
        self.rendered = 0

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of clips (B, 3, T, 64, 64) float32 in [-1, 1] and labels (B, 4) int64."""
        new = batch if self.rendered < batch else max(1, round(self.fresh * batch))
        slots = [(self.rendered + i) % self.capacity for i in range(new)]
        self._render(slots)
        held = min(self.rendered, self.capacity)
        chosen = np.concatenate([slots, rng.choice(held, batch - new)]).astype(np.int64)
        return self._clips[chosen].float() / 127.5 - 1, self._labels[chosen].clone()

    def _render(self, slots: list[int]) -> None:
        size = self.render_sizes[(self.rendered // max(1, len(slots))) % len(self.render_sizes)]
        drawn = render_clips(self.split, range(self.rendered, self.rendered + len(slots)), frames=self.frames, size=size)
        seen = F.adaptive_avg_pool3d(drawn.clips, (self.frames, _SIZE, _SIZE))
        self._clips[slots] = ((seen + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        self._labels[slots] = label_indices(drawn.labels)
        self.rendered += len(slots)


def augment(clips: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, reverse and degrade clips; labels follow.

    Args:
        clips: (B, 3, T, H, W) in [-1, 1].
        labels: (B, 4) classes.
        generator: Source of randomness.

    Returns:
        Clips and labels of the same shapes. A mirrored clip swaps left and right, a reversed one also swaps
        up and down, growing and shrinking.
    """
    clips, labels = clips.clone(), labels.clone()
    motion = ATTRIBUTES.index("motion")
    for axis, swap in ((4, _MIRRORED), (2, _REVERSED)):
        chosen = torch.rand(len(clips), generator=generator) < 0.5
        clips[chosen] = clips[chosen].flip(axis)
        labels[chosen, motion] = _swap_table(swap)[labels[chosen, motion]]
    return torch.stack([_degrade(clip, generator) for clip in clips]), labels


def _swap_table(swap: dict[str, str]) -> Tensor:
    names = VOCABULARY["motion"]
    return torch.tensor([names.index(swap.get(name, name)) for name in names])


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


def train_judge(
    profile: Profile, *, seed: int = 0, batch: int = 32, width: int = 32, validate_clips: int = 256,
    progress: Callable[[dict], None] | None = None,
) -> tuple[Judge, pd.DataFrame]:
    """Train a judge for `profile.judge_steps` steps.

    Args:
        profile: Supplies steps and frames.
        seed: Seed of weights, batches and augmentation.
        batch: Clips a step.
        width: Width of the judge.
        validate_clips: Clips of split `val` that each logged row is measured on.
        progress: Called with each log row.

    Returns:
        The judge in evaluation mode, and its log: step, loss, val_<attribute>, val_all.

    Raises:
        TrainingError: The loss became non-finite.
    """
    torch.manual_seed(seed)
    steps, batch = profile.judge_steps, min(batch, profile.batch)
    judge = Judge(width=width).to(memory_format=torch.channels_last_3d)
    pool = ClipPool(profile.frames, tuple(sorted({_SIZE, profile.size})), 1024 if profile.meaningful else 4 * batch)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps + 1, pct_start=0.2)
    held_out = render_clips("val", range(validate_clips if profile.meaningful else batch),
                            frames=profile.frames, size=profile.size)
    rows = []
    judge.train()
    for step in range(1, steps + 1):
        clips, labels = augment(*pool.draw(batch, rng), generator)
        out = judge(clips)
        loss = sum(
            _LOSS_WEIGHTS[a] * F.cross_entropy(out.logits[a], labels[:, i], label_smoothing=0.02)
            for i, a in enumerate(ATTRIBUTES)
        )
        if not torch.isfinite(loss):
            raise TrainingError(f"the judge's loss became {loss.item()} at step {step}; try another seed")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 10) == 0 or step == steps:
            right = accuracy(judge.predict(held_out.clips), label_indices(held_out.labels))
            rows.append({"step": step, "loss": loss.item()} | {f"val_{k}": v.mean().item() for k, v in right.items()})
            if progress:
                progress(rows[-1])
    return judge.eval(), pd.DataFrame(rows)


def model_card(log: pd.DataFrame, measured: pd.DataFrame, profile: Profile) -> str:
    """Text of the README.md that lies beside a shipped judge."""
    table = "\n".join(
        f"| {row.clips} | " + " | ".join(f"{getattr(row, a):.4f}" for a in (*ATTRIBUTES, "all")) + " |"
        for row in measured.itertuples()
    )
    return f"""# Judge

Reads shape, colour, motion and background back from a clip; its features give the Frechet distance.
Trained by `python -m mobivid_core.training.judge --profile {profile.name}` for {int(log.step.iloc[-1])} steps
on rendered clips of the split `judge` (seeds that no generator trains on), lightly degraded.
`log.csv` is its training log. Weights: MIT, as the code; sprites: Fashion-MNIST (MIT).

Accuracy (evidence: measured):

| clips | {" | ".join((*ATTRIBUTES, "all"))} |
|---|---|---|---|---|---|
{table}

`val` shares its sprites with training (other seeds, trainable triples); `test` has sprites never seen in training
and held-out triples in every second clip, so it is the honest row.
"""


def measure(judge: Judge, *, frames: int, size: int, clips: int = 512) -> pd.DataFrame:
    """The judge's own accuracy on clean clips of `val` and `test`: one row a split."""
    rows = []
    for split in ("val", "test"):
        right = []
        for start in range(0, clips, 64):
            drawn = render_clips(split, range(start, min(start + 64, clips)), frames=frames, size=size)
            right.append(accuracy(judge.predict(drawn.clips), label_indices(drawn.labels)))
        rows.append({"clips": f"{split} ({clips})"} | {k: torch.cat([r[k] for r in right]).mean().item() for k in right[0]})
    return pd.DataFrame(rows)


def main() -> None:
    """Train, measure and save a judge."""
    from mobivid_core import artifacts

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to write; default: the run's stage `judge`")
    arguments = parser.parse_args()
    profile = get_profile(arguments.profile)
    judge, log = train_judge(profile, seed=arguments.seed, progress=lambda row: print(row, flush=True))
    measured = measure(judge, frames=profile.frames, size=profile.size, clips=512 if profile.meaningful else 16)
    print(measured.to_string(index=False))
    if arguments.out is None:
        with artifacts.publish("judge", profile.name) as folder:
            save(judge, log, measured, profile, folder)
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        save(judge, log, measured, profile, arguments.out)
        artifacts.write_stamp(arguments.out, "judge")


def save(judge: Judge, log: pd.DataFrame, measured: pd.DataFrame, profile: Profile, folder: Path) -> None:
    """Write weights, config, log, own accuracy and model card."""
    from mobivid_core import artifacts

    artifacts.save_model(judge, folder)
    log.to_csv(folder / "log.csv", index=False)
    measured.to_csv(folder / "accuracy.csv", index=False)
    (folder / "README.md").write_text(model_card(log, measured, profile), encoding="utf-8")


if __name__ == "__main__":
    main()
