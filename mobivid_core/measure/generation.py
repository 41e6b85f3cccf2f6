"""Generates clips for test captions and scores them, in bounded memory.

Clips are sampled, decoded, measured and dropped batch by batch: 256 clips of 17x128x128 would take a gigabyte.
The noise of clip i depends on (seed, i) alone, so that rows of a table differ by the model and not by luck.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.data.captions import ClipLabel, caption
from mobivid_core.data.render import label_of
from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.measure.diversity import Diversity, caption_diversity
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.measures import BATCH, ClipMeasures, measure
from mobivid_core.measure.minivbench import Reference, Scores, score, shuffled
from mobivid_core.measure.reference import Measured, evaluation_file, measured_reference, read_measured, write_measured
from mobivid_core.models.sampler import Sampler
from mobivid_core.models.text import CaptionSampler
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import Profile


@dataclass(frozen=True)
class Evaluation:
    """One model's generated clips, measured, with seconds a clip of sampling (guidance included) and of decoding.

    `measures` has a row a clip in the order of `labels`, what each caption asked for; `clips` (K, 3, T, H, W) are the
    first few, to look at.
    """

    scores: Scores
    measures: ClipMeasures
    labels: list[ClipLabel]
    clips: Tensor
    seconds_per_clip: float
    decode_seconds_per_clip: float


@dataclass(frozen=True)
class Evaluator:
    """Scores models of one profile against one VAE, judge and reference.

    `real` and `reconstruction` measure the real clips of the evaluated captions, the latter through the VAE; `labels`
    are those of the captions, of the split "test", or "val" to choose settings on.
    """

    vae: MobiVidVAE
    judge: Judge
    profile: Profile
    reference: Reference
    real: ClipMeasures
    reconstruction: ClipMeasures
    labels: list[ClipLabel]
    split: str = "test"

    @classmethod
    def prepare(
        cls,
        vae: MobiVidVAE,
        judge: Judge,
        profile: Profile,
        *,
        n: int | None = None,
        split: str = "test",
        start: int = 0,
        progress: bool = True,
    ) -> Evaluator:
        """Measure the real clips and their reconstructions; later notebooks of a run reuse what is kept.

        Args:
            n: Evaluated clips and reference clips; None for the profile's `eval_clips`.
            split: "test" for what is reported, "val" to choose settings on; the reference clips are of the same split.
            start: Index of the first caption: a final judgement takes captions that no choice has seen.
        """
        n = profile.eval_clips if n is None else n
        reference, real, reconstruction = measured_reference(vae, judge, profile, n, split, start, progress)
        labels = [label_of(split, i) for i in range(start, start + n)]
        return cls(vae, judge, profile, reference, real, reconstruction, labels, split)

    def rows(self) -> dict[str, Scores]:
        """The three reference rows: what is best, what the codec allows, and what ignoring captions gives."""
        return {
            "real clips": self.score(self.real, self.labels),
            "VAE reconstructions": self.score(self.reconstruction, self.labels),
            "real clips, shuffled captions": self.score(self.real, shuffled(self.labels)),
        }

    def score(self, measures: ClipMeasures, labels: Sequence[ClipLabel]) -> Scores:
        """Score measured clips against labels."""
        return score(measures, labels, self.reference)

    def evaluate(
        self,
        model: nn.Module,
        *,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        solver: str = "euler",
        **how: object,
    ) -> Evaluation:
        """`run` by a sampler in words: None is the profile's teacher's."""
        return self.run(model, self.way(steps, guidance, solver), **how)

    def run(self, model: nn.Module, sampler: Sampler, **how: object) -> Evaluation:
        """`evaluate_sampler` of a model by a sampler; a large evaluation is kept."""
        return self.evaluate_sampler(sampler.on(model), kept=(model, sampler), **how)

    def evaluate_sampler(
        self,
        sampler: CaptionSampler,
        *,
        n: int | None = None,
        wording: int | None = None,
        seed: int = 0,
        batch: int = 32,
        keep: int = 8,
        quality: bool = True,
        independent: bool | None = None,
        progress: bool = True,
        kept: tuple[nn.Module, Sampler] | None = None,
    ) -> Evaluation:
        """Generate clips for the first `n` captions, None for all, and score them.

        An `n` above the evaluator's captions is a `ParameterError`.

        Args:
            sampler: From (captions, noise (B, C, t, h, w)) to normalised latents.
            wording: Word every caption this way; None keeps the captions' own wordings.
            keep: So many first clips stay to look at.
            quality: False leaves the quality measures out: see `measures.measure`.
            independent: Also measure distances in features of a network that never saw these clips; None where the
                trusted space is of that network.
            kept: What the sampler is made of, where a large evaluation is to be kept and taken up again.
        """
        n = len(self.labels) if n is None else n
        if not 1 <= n <= len(self.labels):
            raise ParameterError(f"n is {n}; this evaluator was prepared with {len(self.labels)} captions")
        labels = [x if wording is None else replace(x, wording=wording) for x in self.labels[:n]]
        if independent is None:
            independent = self.reference.space.column == "image_features"
        file = None
        if kept:
            model, way = kept
            # what the plan computes, not its reasons: those hold timings, which are others elsewhere
            kind = type(model).__qualname__, getattr(getattr(model, "plan", None), "computes", None)
            steps = way.solver, as_guidance(way.guidance).key, tuple(way.sigmas().tolist())
            settings = (self.split, caption(self.labels[0]), *steps, wording, seed, keep, quality, *kind)
            file = evaluation_file([self.vae, self.judge, model], settings, self.profile, n)
        found = read_measured(file, independent)
        if found is None:
            found = self._measured(sampler, labels, seed, batch, keep, quality, independent, progress)
            write_measured(file, found)
        measures, *rest = found
        return Evaluation(self.score(measures, labels), measures, labels, *rest)

    def first(self, evaluation: Evaluation, n: int) -> Evaluation:
        """The first n clips of an evaluation, scored by themselves."""
        measures, labels = evaluation.measures[:n], evaluation.labels[:n]
        scores, clips = self.score(measures, labels), evaluation.clips[:n]
        return replace(evaluation, scores=scores, measures=measures, labels=labels, clips=clips)

    def way(self, steps: int | None, guidance: float | Guidance | None, solver: str) -> Sampler:
        """The sampler that is meant where None stands for the profile's teacher."""
        steps = self.profile.teacher_sampling_steps if steps is None else steps
        return Sampler(solver, steps, as_guidance(self.profile.guidance if guidance is None else guidance))

    def _measured(
        self, sampler: CaptionSampler, labels: list[ClipLabel], seed: int, batch: int, keep: int, quality: bool,
        independent: bool, progress: bool,
    ) -> Measured:  # fmt: skip
        """Sample, decode and measure, batch by batch."""
        parts, kept, seconds, decoding = [], [], 0.0, 0.0
        n, bar = len(labels), {"desc": "generating", "ascii": True, "mininterval": 2}
        for start in tqdm(range(0, n, batch), disable=not progress, **bar):
            chosen = labels[start : start + batch]
            began = time.perf_counter()
            latents = sampler([caption(x) for x in chosen], self.noise(range(start, start + len(chosen)), seed))
            seconds += time.perf_counter() - began
            for part in latents.split(BATCH):
                began = time.perf_counter()
                clips = self.decode(part)
                decoding += time.perf_counter() - began
                parts.append(measure(clips, self.judge, quality, independent))
                if not kept or sum(map(len, kept)) < keep:
                    kept.append(clips)
        return ClipMeasures.join(parts), torch.cat(kept)[:keep], seconds / n, decoding / n

    def noise(self, indices: Sequence[int], seed: int = 0) -> Tensor:
        """Starting noise (B, C, t, h, w) of some clips, each a function of (seed, index)."""
        shape = self.vae.latent_shape(self.profile.frames, self.profile.size, self.profile.size)
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + i)) for i in indices]
        return torch.stack(drawn)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) of normalised latents, in small batches."""
        parts = latents.to(self.vae.device).split(BATCH)
        return torch.cat([self.vae.decode_latents(part).cpu() for part in parts])

    def diversity(
        self,
        model: nn.Module,
        *,
        captions: int = 8,
        repeats: int = 6,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        solver: str = "euler",
        seed: int = 0,
    ) -> Diversity:
        """How different clips of one caption are; sampling as in `evaluate`, see `caption_diversity`."""
        return caption_diversity(self, self.way(steps, guidance, solver).on(model), captions, repeats, seed)
