"""Stages of a GPU run: each reads and writes folders, ends when its time is spent, and resumes.

Paper: its models take many GPUs for weeks; this is the miniature's whole chain in minutes of one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import torch
from safetensors.torch import save_file

from mobivid_core.artifacts import save_model
from mobivid_core.data.captions import caption
from mobivid_core.data.latents import encode_many, spread_wordings
from mobivid_core.data.pool import FILM_SHARE, VideoPool, film_pool, to_bytes
from mobivid_core.data.render import draw_scenes, paint, render_clips
from mobivid_core.files import write_json
from mobivid_core.lab.gpu.place import ENDLESS, Place, dataset
from mobivid_core.lab.gpu.students import compare, contest, guidance, prune, regress, trajectories
from mobivid_core.measure.borders import border_ratio, sharpness
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.train.judge import publish_judge
from mobivid_core.train.sharpen import sharpen_decoder
from mobivid_core.train.teacher import train_teacher
from mobivid_core.train.vae import train_vae


def codec(place: Place, seconds: float, name: str = "vae", encoder_width: int | None = None, channels: int = 0) -> None:
    """Train the VAE on film and captioned clips that lie on the device."""
    p = place.profile
    vae, result = train_vae(
        _pool(place, 8192 if place.fast else 24),
        ratio=p.vae_ratio,
        channels=channels or p.vae_channels,
        width=p.vae_width,
        encoder_width=p.vae_encoder_width if encoder_width is None else encoder_width,
        steps=ENDLESS,
        seconds=seconds,
        device=place.device,
        folder=place.root / "states" / name,
        batch=32 if place.fast else 2,
        crop=p.size,
        bf16=place.fast,
        progress=False,
    )
    save_model(vae.cpu(), place.root / name, torch.float16)
    place.log(name, result.log)
    measured = _reconstruction(place, place.vae(name))
    print(f"{name}: {result.log[-1]}", json.dumps(measured), flush=True)
    write_json(place.root / f"{name}.json", measured)


def _pool(place: Place, count: int) -> VideoPool:
    """Captioned clips, and on a GPU the film, as bytes on the device."""
    sizes = {"frames": place.profile.frames, "size": place.profile.size, "device": place.device}
    step = min(count, 256)
    drawn = [to_bytes(render_clips("train", range(i, i + step), **sizes).clips) for i in range(0, count, step)]
    pool = VideoPool.of(torch.cat(drawn))
    return film_pool(place.profile.frames).to(place.device).joined(pool, FILM_SHARE) if place.fast else pool


@torch.no_grad()
def _reconstruction(place: Place, vae: MobiVidVAE) -> dict[str, float]:
    """PSNR and borders on clips of `val`."""
    clips = render_clips("val", range(64 if place.fast else 4), size=place.profile.size, device=place.device).clips
    out = torch.cat([vae(part) for part in clips.split(16)]).clamp(-1, 1)
    error = (out - clips).square().mean((1, 2, 3, 4))
    return {
        "psnr_db": float((10 * torch.log10(4 / error)).mean()),
        "borders": float(border_ratio(out).mean()),
        "real_borders": float(border_ratio(clips).mean()),
        "sharpness": float(sharpness(out).mean() / sharpness(clips).mean()),
    }


def sharpen(place: Place, seconds: float, name: str = "vae") -> None:
    """Make the decoder crisp; the encoder stays, so latents made before stay valid."""
    vae, result = sharpen_decoder(
        place.vae(name),
        _pool(place, 4096 if place.fast else 8),
        steps=ENDLESS if place.fast else 3,
        seconds=seconds,
        device=place.device,
        folder=place.root / "states" / f"{name}-sharp",
        batch=16 if place.fast else 2,
        crop=place.profile.size,
        bf16=place.fast,
        progress=False,
    )
    save_model(vae.cpu(), place.root / f"{name}-sharp", torch.float16)
    place.log(f"{name}-sharp", result.log)
    measured = _reconstruction(place, place.vae(f"{name}-sharp"))
    print(f"{name}-sharp: {result.log[-1]} {result.ended}", json.dumps(measured), flush=True)
    write_json(place.root / f"{name}-sharp.json", measured)


@torch.no_grad()
def latents(place: Place, seconds: float, name: str = "vae", split: str = "train", count: int = 0) -> None:
    """Render, encode and caption clips; captions are encoded on the device."""
    del seconds
    vae, count = place.vae(name), count or place.clips
    parts, labels = [], []
    step = 512 if place.fast else 16
    for start in range(0, count, step):
        scenes, drawn = draw_scenes(split, range(start, min(start + step, count)), place.profile.frames)
        clips = paint(scenes, place.profile.size, place.device)[0]
        with torch.autocast(place.device.type, torch.bfloat16, enabled=False):
            parts.append(torch.cat([vae.encode_latents(c) for c in clips.split(128)]).half())
        labels += drawn
    words = [[caption(replace(x, wording=w)) for w in spread_wordings(x.wording, 2)] for x in labels]
    distinct = sorted({w for row in words for w in row})
    at = {w: i for i, w in enumerate(distinct)}
    text, mask = encode_many(distinct, place.device, 2048)
    null_text, null_mask = encode_many([""], place.device)
    tensors = {
        "latents": torch.cat(parts),
        "text": text,
        "mask": mask,
        "caption_of": torch.tensor([[at[w] for w in row] for row in words]),
        "null_text": null_text.float(),
        "null_mask": null_mask,
    }
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, place.root / f"{name}-{split}.safetensors")
    print(f"latents {name}: {tuple(tensors['latents'].shape)}, {len(distinct)} captions", flush=True)


def teacher(place: Place, seconds: float, name: str = "vae", out: str = "teacher") -> None:
    """Train the teacher."""
    model, result = train_teacher(
        dataset(place, name),
        replace(place.profile.server, in_channels=place.vae(name).config.latent_channels),
        steps=ENDLESS,
        seconds=seconds,
        batch=place.batch,
        folder=place.root / "states" / out,
        bf16=place.fast,
        compiled=place.fast,
        progress=False,
    )
    save_model(model.cpu(), place.root / out, torch.float16)
    place.log(out, result.log)
    print(f"{out}: {result.log[-1]}", flush=True)


def judge(place: Place, seconds: float) -> None:
    """Train the judge: by steps, since it has to be the same whatever the machine."""
    del seconds
    publish_judge(place.profile, folder=place.root / "judge", device=place.device, progress=print)


STAGES: dict[str, Callable] = {
    "judge": judge,
    "codec": codec,
    "sharpen": sharpen,
    "latents": latents,
    "teacher": teacher,
    "guidance": guidance,
    "trajectories": trajectories,
    "prune": prune,
    "regress": regress,
    "contest": contest,
    "compare": compare,
}
