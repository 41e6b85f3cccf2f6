"""Small demonstrations with the shipped teacher and film, on which solved exercises are tested in seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mobivid_core import artifacts
from mobivid_core.data.film import film_clips
from mobivid_core.flow.path import TIMESTEP_SCALE
from mobivid_core.flow.sampling import textbook_sigmas
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.text import encode_captions
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile

_CAPTIONS = ("a red star moving right on a plain background", "a blue fish growing on a gradient background")


def film_blocks() -> np.ndarray:
    """Blocks of unseen film, (N, 3 * 4 * 8 * 8) float64 in [-1, 1]: what one token of a 4x8x8 VAE stands for.

    They come from six clips of 17 frames at 64 pixels, of which the first frame is left out.
    """
    whole = film_clips("test", frames=17, size=64, limit=6).clips[:, :, 1:]
    tiles = whole.unfold(2, 4, 4).unfold(3, 8, 8).unfold(4, 8, 8)  # (N, 3, t, h, w, 4, 8, 8)
    return tiles.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(0, 3).flatten(1).double().numpy()


@torch.no_grad()
def sampled_clip(euler_step: Callable[..., Tensor], guided_velocity: Callable[..., Tensor], prompt: str) -> Tensor:
    """A clip (1, 3, T, H, W) in [-1, 1] of the shipped teacher through a sampler of the reader's own: 8 steps, g = 3.

    It is given as euler_step(x, v, sigma, sigma_next) and guided_velocity(v_empty, v_text, g).
    """
    vae, teacher, shape = _shipped()
    asked = encode_captions([prompt])
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    sigmas = [*textbook_sigmas(8), 0.0]
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:], strict=True):
        time = torch.full((1,), TIMESTEP_SCALE * sigma)
        v_empty, v_text = (teacher(x, time, c.text, c.mask).sample for c in (asked.empty(), asked))
        x = euler_step(x, guided_velocity(v_empty, v_text, 3.0), sigma, sigma_next)
    return vae.decode_latents(x)


@torch.no_grad()
def ffn_activations(block: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the down layer of a block's FFN in the shipped teacher sees at high noise, and its weight.

    Two sets of activations (32 * tokens, neurons) from different noises, and (hidden, neurons).
    """
    _, teacher, shape = _shipped()
    asked = encode_captions([*_CAPTIONS] * 16)
    generator, seen = torch.Generator().manual_seed(0), []
    down = teacher.blocks[block].ffn.down
    hook = down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, -2)))
    for _ in range(2):
        noise = torch.randn(32, *shape, generator=generator)
        teacher(noise, torch.full((32,), TIMESTEP_SCALE), asked.text, asked.mask)
    hook.remove()
    return seen[0], seen[1], down.weight.detach()


def _shipped() -> tuple[MobiVidVAE, MobiVidTransformer3DModel, tuple[int, ...]]:
    """Shipped VAE and teacher, and the shape of one clip's latents."""
    profile = get_profile("laptop")
    vae = artifacts.load_model(MobiVidVAE, artifacts.shipped_path("vae")).eval()
    teacher = artifacts.load_model(MobiVidTransformer3DModel, artifacts.shipped_path("teacher")).eval()
    return vae, teacher, vae.latent_shape(profile.frames, profile.size, profile.size)
