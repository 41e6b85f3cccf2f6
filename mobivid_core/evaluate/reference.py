"""What generated clips are compared with: real clips and what the VAE makes of them.

Measuring them takes a good part of a minute, and notebooks 02, 04 and 05 need the same ones: the measures are kept
under `runs/<profile>/evaluation`, named by a hash of everything they depend on, the measuring code included.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from mobivid_core.data.render import render_clips
from mobivid_core.evaluate.judge import Judge
from mobivid_core.evaluate.minivbench import ClipMeasures, Reference, measure
from mobivid_core.evaluate.quality import ImagingReference, imaging_statistics
from mobivid_core.files import write_bytes
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.paths import runs_dir
from mobivid_core.profiles import Profile

#: Reference clips have indices from here on, so that they are never among the evaluated ones.
REFERENCE_START = 1_000_000
_RENDER_BATCH = 16


def measured_reference(
    vae: MobiVidVAE, judge: Judge, profile: Profile, n: int, *, cache: bool = True, progress: bool = True
) -> tuple[Reference, ClipMeasures, ClipMeasures]:
    """Measure n real test clips, the same clips through the VAE, and n other clips as the reference of distances.

    Args:
        vae: A trained VAE.
        judge: A trained judge.
        profile: Sizes.
        n: Clips of each set.
        cache: Keep the measures, and use them if they are there.
        progress: Show a progress bar.

    Returns:
        The reference, the measures of the real clips and those of the reconstructions.
    """
    vae.eval()
    judge.eval()
    file = runs_dir(profile.name) / "evaluation" / f"{_key(vae, judge, n, profile)}.safetensors" if cache else None
    if file and file.is_file():
        stored = load_file(file)
    else:
        stored = _measure_real(vae, judge, profile, n, progress)
        if file:
            write_bytes(file, save(stored))
    imaging = ImagingReference.fit(stored["reference.imaging"])
    reference = Reference(imaging, stored["reference.real"], stored["reference.reconstruction"])
    return reference, _unpack("real", stored), _unpack("reconstruction", stored)


@torch.no_grad()
def _measure_real(vae: MobiVidVAE, judge: Judge, profile: Profile, n: int, progress: bool) -> dict[str, Tensor]:
    """Measures of n real clips and their reconstructions, and the statistics of n others as the reference."""
    found: dict[str, list[ClipMeasures]] = {"real": [], "reconstruction": []}
    reference: dict[str, list[Tensor]] = {"imaging": [], "real": [], "reconstruction": []}
    starts = [*range(0, n, _RENDER_BATCH), *range(REFERENCE_START, REFERENCE_START + n, _RENDER_BATCH)]
    for start in tqdm(starts, desc="measuring real clips", disable=not progress, ascii=True, mininterval=2):
        end = n if start < n else REFERENCE_START + n
        drawn = render_clips(
            "test", range(start, min(start + _RENDER_BATCH, end)), frames=profile.frames, size=profile.size
        )
        again = vae.decode_latents(vae.encode_latents(drawn.clips.to(vae.device))).cpu()
        if start < n:
            found["real"].append(measure(drawn.clips, judge))
            found["reconstruction"].append(measure(again, judge))
        else:
            reference["imaging"].append(imaging_statistics(drawn.clips))
            reference["real"].append(judge.read(drawn.clips)[1])
            reference["reconstruction"].append(judge.read(again)[1])
    packed = {f"reference.{name}": torch.cat(parts) for name, parts in reference.items()}
    for name, parts in found.items():
        joined = ClipMeasures.join(parts)
        packed |= {f"{name}.{f.name}": getattr(joined, f.name).contiguous() for f in fields(joined)}
    return packed


def _unpack(name: str, stored: dict[str, Tensor]) -> ClipMeasures:
    return ClipMeasures(*(stored[f"{name}.{f.name}"] for f in fields(ClipMeasures)))


def _key(vae: nn.Module, judge: nn.Module, n: int, profile: Profile) -> str:
    """Hash of all that the reference measures depend on: weights, sizes, and the code that draws and measures."""
    digest = hashlib.sha256(repr((n, profile.frames, profile.size)).encode())
    for value in [*vae.state_dict().values(), *judge.state_dict().values()]:
        digest.update(value.detach().cpu().numpy().tobytes())
    here = Path(__file__).parent
    for source in sorted([*here.glob("*.py"), *(here.parent / "data").glob("*.py")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
