"""What generated clips are compared with: real clips and what the VAE makes of them; and measures that are kept.

Measuring real clips takes a good part of a minute, and notebooks 02, 04 and 05 need the same ones; notebooks 02 and 05
both judge the teacher's full sampler. Such measures are kept under `runs/<profile>/evaluation`, named by a hash of
everything they depend on: weights, sampler, captions, the code that measures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.files import read_tensors, write_bytes
from mobivid_core.measure.image_features import ImageAxes
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.measures import ClipMeasures, measure, render_batches
from mobivid_core.measure.minivbench import SPACES, Reference
from mobivid_core.measure.quality import ImagingReference, imaging_statistics
from mobivid_core.measure.trials import failing, run_trials
from mobivid_core.measure.trust import trusted_space
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile

#: Reference clips have indices from here on, so that they are never among the evaluated ones.
REFERENCE_START = 1_000_000
#: Clips that are damaged to test the measures.
TRIAL_CLIPS = 96
#: Folders of the package that draw, sample and measure: their code is part of what kept measures depend on.
MEASURING_CODE = ("measure", "data", "flow", "models", "pipeline")
#: Evaluations of fewer clips are quickly made again.
FROM_CLIPS = 64
#: Measured clips, the first of them to look at, and seconds a clip of sampling and of decoding.
Measured = tuple[ClipMeasures, Tensor, float, float]


def measured_reference(
    vae: MobiVidVAE, judge: Judge, profile: Profile, n: int, split: str, start: int, progress: bool
) -> tuple[Reference, ClipMeasures, ClipMeasures]:
    """Measure n real clips of a split, the same clips through the VAE, and n other clips as the reference of distances.

    The first clip is `start`, those of the reference begin `REFERENCE_START` later. Returns the reference, the measures
    of the real clips and those of the reconstructions.
    """
    vae.eval()
    judge.eval()
    file = kept_file("{}.safetensors", [vae, judge], (split, start, n), profile)
    stored = read_tensors(file)
    if stored is None:
        stored = _measure_real(vae, judge, profile, n, split, start, progress)
        write_bytes(file, save(stored))
    imaging, axes = ImagingReference.fit(stored["reference.imaging"]), ImageAxes.fit(stored["reference.image_real"])
    looks = {name: axes.project(stored[f"reference.{name}"]) for name in ("image_real", "image_reconstruction")}
    dropped, space = (), SPACES["judge"]
    # at profiles whose numbers mean nothing the judge is not trained, and no measure could pass
    if profile.meaningful:
        trials = measured_trials(judge, profile, progress=progress)
        dropped, space = failing(trials), trusted_space(trials)
    features = stored["reference.real"], stored["reference.reconstruction"]
    reference = Reference(imaging, *features, image_axes=axes, **looks, dropped=dropped, space=space)
    real, reconstruction = (
        ClipMeasures(**{k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(f"{name}.")})
        for name in ("real", "reconstruction")
    )
    return reference, real, reconstruction


def measured_trials(judge: Judge, profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """What known damage does to each measure (`trials.effects`), kept; of `TRIAL_CLIPS` clips or `eval_clips`."""
    n = min(TRIAL_CLIPS, profile.eval_clips)
    file = kept_file("trials-{}.csv", [judge], n, profile)
    if not file.is_file():
        frame = run_trials(judge, frames=profile.frames, size=profile.size, n=n, progress=progress)
        write_bytes(file, frame.to_csv(index=False).encode())
    return pd.read_csv(file, keep_default_na=False, dtype={"expected": str, "seen": str})


@torch.no_grad()
def _measure_real(
    vae: MobiVidVAE, judge: Judge, profile: Profile, n: int, split: str, first: int, progress: bool
) -> dict[str, Tensor]:
    """Measures of n real clips and their reconstructions, and the statistics of n others as the reference."""
    packed: dict[str, Tensor] = {}
    bar = tqdm(total=2 * n, desc="measuring real clips", disable=not progress, ascii=True, mininterval=2)
    for start, evaluated in ((first, True), (first + REFERENCE_START, False)):
        imaging: list[Tensor] = []
        found: dict[str, list[ClipMeasures]] = {"real": [], "reconstruction": []}
        for drawn in render_batches(split, start, n, frames=profile.frames, size=profile.size):
            again = vae.decode_latents(vae.encode_latents(drawn.clips.to(vae.device))).cpu()
            for name, clips in (("real", drawn.clips), ("reconstruction", again)):
                found[name].append(measure(clips, judge, quality=evaluated, independent=True))
            if not evaluated:
                imaging.append(imaging_statistics(drawn.clips))
            bar.update(len(again))
        for name, parts in found.items():
            joined = ClipMeasures.join(parts)
            if evaluated:
                packed |= {f"{name}.{k}": column.contiguous() for k, column in joined.columns().items()}
            else:
                packed |= {f"reference.{name}": joined.features, f"reference.image_{name}": joined.image_features}
    bar.close()
    return packed | {"reference.imaging": torch.cat(imaging)}


def kept_file(name: str, models: Sequence[nn.Module], settings: object, profile: Profile) -> Path:
    """Where measures are kept: `name` with the hash of weights, settings (by their `repr`), sizes and measuring code.

    So a file under this name holds what this code measures, and needs no version of its own.
    """
    digest = hashlib.sha256(repr((settings, profile.frames, profile.size)).encode())
    for value in (tensor for model in models for tensor in model.state_dict().values()):
        digest.update(value.detach().cpu().numpy().tobytes())
    for folder in MEASURING_CODE:
        for source in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
            digest.update(source.read_bytes())
    return runs_dir(profile.name) / "evaluation" / name.format(digest.hexdigest()[:16])


def evaluation_file(models: Sequence[nn.Module], settings: tuple, profile: Profile, n: int) -> Path | None:
    """Where an evaluation of `n` generated clips is kept; None where it is not worth a file."""
    return kept_file("generated-{}.safetensors", models, (n, *settings), profile) if n >= FROM_CLIPS else None


def read_measured(file: Path | None, independent: bool) -> Measured | None:
    """What `write_measured` left; None without a readable file, or where it lacks the `independent` features."""
    stored = read_tensors(file)
    if stored is None or (independent and "image_features" not in stored):
        return None
    seconds, clips = stored.pop("seconds").tolist(), stored.pop("clips")
    return ClipMeasures(**stored), clips, *seconds


def write_measured(file: Path | None, measured: Measured) -> None:
    """Keep an evaluation, whole or not at all."""
    if file is None:
        return
    measures, clips, *seconds = measured
    columns = {k: v for k, v in measures.columns().items() if v is not None}
    columns |= {"clips": clips, "seconds": torch.tensor(seconds, dtype=torch.float64)}
    write_bytes(file, save({k: v.contiguous() for k, v in columns.items()}))
