"""Image to video without training: hold the first latent frame to a given image and sample the others.

Paper: not part of it; a reviewer asked for it (R3.3). The causal VAE codes the first frame alone, so an image has a
latent of its own, at latent time 0. At every noise level that part of the sample is replaced by the image's latent with
the noise of that level, as in inpainting by replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from mobivid_core.errors import ParameterError

if TYPE_CHECKING:
    from mobivid_core.models.vae import MobiVidVAE

#: One picture: PIL of any mode; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a tensor with channels first.
Picture = Image.Image | np.ndarray | Tensor
#: One, several in a list, or an array or tensor with a leading axis of pictures.
ImageInput = Picture | Sequence[Picture]
_CHANNELS = (1, 3, 4)
_KINDS = "PIL, an (H, W, 3) array or a (3, H, W) tensor (grey and RGBA too), as bytes or in [0, 1], or one a prompt"


@dataclass(frozen=True)
class FirstFrame:
    """An image in latent space, and the noise it is mixed with."""

    latent: Tensor  # (B, C, 1, h, w) normalised
    noise: Tensor  # the same shape: the first latent frame of the noise that sampling starts from

    def hold(self, x: Tensor, sigma: float) -> Tensor:
        """(B, C, t, h, w) at noise level `sigma` -> the same with its first frame replaced by the image's."""
        held = (1 - sigma) * self.latent + sigma * self.noise
        return torch.cat([held.to(x), x[:, :, 1:]], dim=2)


@torch.no_grad()
def encode_image(
    vae: MobiVidVAE, image: ImageInput, prompts: int, clips: int, height: int, width: int, device: torch.device
) -> Tensor:
    """Latents (`clips`, C, 1, h, w) of an image, or of one image a prompt or a clip; resized if needed.

    Each prompt has the same number of clips beside each other. `device` is where to compute (an offloaded VAE lies
    elsewhere). A ParameterError says what is not an image, or that there are too few or too many.
    """
    pictures = [_resized(_of_numbers(picture), height, width) for picture in _pictures(image)]
    if len(pictures) not in (1, prompts, clips):
        raise ParameterError(f"expected one image or {prompts}, one a prompt; got {len(pictures)}")
    pixels = torch.stack(pictures).repeat_interleave(clips // len(pictures), 0)
    pixels = 2 * pixels.to(device, vae.dtype) - 1
    return vae.encode_latents(pixels[:, :, None])


def _pictures(image: ImageInput) -> list[object]:
    """Each picture as an array or tensor, if it is one."""
    if isinstance(image, (list, tuple)):
        return [picture for one in image for picture in _pictures(one)]
    if isinstance(image, Image.Image):
        return [_of_pil(image)]
    return list(image) if isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4 else [image]


def _of_pil(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)  # phones store turned pixels and a note how to turn them
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would clip these to bytes
        array = np.asarray(image)
        return array.astype(np.uint16) if array.dtype.kind in "iu" else array
    clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.array(image.convert("RGBA" if clear else "RGB"))


def _of_numbers(values: object) -> Tensor:
    """An array or tensor of one picture as (3, H, W) in [0, 1]; what is transparent shows white, as in a browser."""
    if not isinstance(values, (np.ndarray, Tensor)) or values.ndim not in (2, 3) or 0 in values.shape:
        got = f"shape {tuple(values.shape)}" if hasattr(values, "shape") else f"{values!r:.80}"
        raise ParameterError(f"image must be {_KINDS}; got {got}")
    channels = 1 if values.ndim == 2 else values.shape[0] if isinstance(values, Tensor) else values.shape[2]
    if channels not in _CHANNELS:
        raise ParameterError(f"image must be {_KINDS}; got a {type(values).__name__} of shape {tuple(values.shape)}")
    if isinstance(values, np.ndarray):
        try:
            values = torch.from_numpy(np.ascontiguousarray(values))
        except TypeError as error:  # strings, objects
            raise ParameterError(f"image must be {_KINDS}; got an array of {values.dtype}") from error
        values = values.permute(2, 0, 1) if values.ndim == 3 else values
    pixels = _in_unit_range(values.detach().cpu())
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if channels == 4:
        pixels = pixels[:3] * pixels[3:] + 1 - pixels[3:]
    return pixels.expand(3, -1, -1)


def _in_unit_range(values: Tensor) -> Tensor:
    """Bytes, 16-bit numbers or values in [0, 1] as float32 in [0, 1]."""
    if values.is_complex():
        raise ParameterError(f"image must be {_KINDS}; got {values.dtype}")
    whole = values.dtype != torch.bool and not values.is_floating_point()
    largest = (65535 if values.dtype == torch.uint16 else 255) if whole else 1
    pixels = values.to(torch.int64) if whole else values.float()
    if not bool(((pixels >= 0) & (pixels <= largest)).all()):  # false for NaN too
        low, high = (value if whole else f"{value:g}" for value in (pixels.min().item(), pixels.max().item()))
        hint = "floating-point pixels lie in [0, 1]: divide bytes by 255, or map [-1, 1] by (x + 1) / 2"
        hint = f"whole numbers lie in [0, {largest}]" if whole else hint
        raise ParameterError(f"image has values from {low} to {high}; {hint}")
    return pixels.float() / largest


def _resized(picture: Tensor, height: int, width: int) -> Tensor:
    if tuple(picture.shape[1:]) == (height, width):
        return picture
    return F.interpolate(picture[None], (height, width), mode="bicubic", antialias=True)[0].clamp(0, 1)
