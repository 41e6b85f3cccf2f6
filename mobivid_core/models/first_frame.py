"""Image to video without training: the first latent frame is held to a given image while the others are sampled.

Paper: not part of it; a reviewer asked for it (R3.3). The causal VAE codes the first frame alone (T = 1 + 8k), so an
image has a latent of its own, at latent time 0. At every noise level that part of the sample is replaced by the
image's latent with the noise that belongs to that level, as in inpainting by replacement; at the end by the latent
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mobivid_core.models.vae import MobiVidVAE


@dataclass(frozen=True)
class FirstFrame:
    """An image in latent space, and the noise it is mixed with.

    Attributes:
        latent: (B, C, 1, h, w) normalised.
        noise: The same shape: the first latent frame of the noise that sampling starts from.
    """

    latent: Tensor
    noise: Tensor

    def hold(self, x: Tensor, sigma: float) -> Tensor:
        """(B, C, t, h, w) at noise level `sigma` -> the same with its first frame replaced by the image's."""
        held = (1 - sigma) * self.latent + sigma * self.noise
        return torch.cat([held.to(x), x[:, :, 1:]], dim=2)


@torch.no_grad()
def encode_image(vae: MobiVidVAE, image: Image | np.ndarray | Tensor, clips: int, height: int, width: int) -> Tensor:
    """Latent of an image, or of one image a clip.

    Args:
        vae: The clips' VAE.
        image: PIL, (H, W, 3) array or (3, H, W) tensor in [0, 1], or B of them; resized if needed.
        clips: B.
        height, width: Of the clip, in pixels.

    Returns:
        (B, C, 1, h, w).

    Raises:
        ParameterError: Not an image, or neither one nor `clips` of them.
    """
    from diffusers.image_processor import VaeImageProcessor

    try:
        pixels = VaeImageProcessor(vae_scale_factor=1).preprocess(image, height=height, width=width)
    except (ValueError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"image must be PIL, an (H, W, 3) array or a (3, H, W) tensor in [0, 1], or one a prompt: {error}"
        ) from error
    if pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) not in (1, clips):
        raise ParameterError(f"expected one image or {clips}, one a prompt; got {tuple(pixels.shape)} after resizing")
    pixels = pixels.expand(clips, -1, -1, -1).to(vae.device, vae.dtype)
    return vae.encode_latents(pixels[:, :, None])
