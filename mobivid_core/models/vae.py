"""Causal video VAE with the compression ratio in its config; the main model runs at the paper's 8x32x32.

Paper: section on the high-compression VAE (data/paper/claims.csv, C19). Its inner structure is not public; this one is
ours. A linear path, a PCA of overlapping patches (`Lap`), does most of the work from the first step. In the decoder a
convolutional net learns what a linear code cannot express: what lies across token borders, and what an earlier frame
shows better; in the encoder another one may add to the linear code. All is causal: a latent depends on no later frame,
a decoded frame on no later latent, and the first frame is coded alone, so that an image is a video of one frame.

Simplified: no tiling. Perceptual and adversarial losses: `train.sharpen`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.models.counts import latent_grid
from mobivid_core.models.vae_linear import LinearDecoder, LinearEncoder
from mobivid_core.models.vae_nets import DecoderNet, EncoderNet

#: The posterior's log-variance, fixed: noise of std 0.05 on raw channels of about unit size.
LOG_VARIANCE = -6.0


class NormalisedLatents:
    """Latents as the diffusion model sees them, for a codec with `encode_raw`, `decode_raw` and a scale a channel.

    Offloading hooks sit on `forward`; `apply_forward_hook` lets the entrances beside it bring the weights as well.
    """

    latents_mean: Tensor  # (C,), as the next
    latents_std: Tensor

    @apply_forward_hook
    def encode_latents(self, clip: Tensor) -> Tensor:
        """Normalised latents (B, C, t, h, w) of a clip (B, 3, T, H, W), the posterior's mean."""
        return (self.encode_raw(clip) - _per_channel(self.latents_mean)) / _per_channel(self.latents_std)

    @apply_forward_hook
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Clip in [-1, 1] of normalised latents."""
        raw = latents * _per_channel(self.latents_std) + _per_channel(self.latents_mean)
        return self.decode_raw(raw).clamp(-1, 1)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


class MobiVidVAE(NormalisedLatents, ModelMixin, ConfigMixin):
    """Video autoencoder; clips (B, 3, T, H, W) in [-1, 1] to latents (B, C, 1 + (T - 1) / rt, H / rh, W / rw)."""

    @register_to_config
    def __init__(
        self,
        ratio: tuple[int, int, int] = (8, 32, 32),  # time x height x width; the last two alike, a power of two from 8
        latent_channels: int = 64,
        width: int = 64,  # of the decoder's convolutional net; 0 leaves the linear (PCA) codec alone
        frame_coefficients: int | None = None,  # a patch keeps these before time is merged; None for 2 C, at most all
        lapped: bool = True,  # overlap the linear path's patches; a saved config that does not say has none
        encoder_width: int = 0,  # of the encoder's convolutional net; 0 leaves the code linear
    ) -> None:
        super().__init__()
        time, height, patch = ratio
        if height != patch or patch < 8 or patch & (patch - 1) or time < 1:
            raise ParameterError(
                f"VAE ratio {tuple(ratio)} is not supported: height and width must be the same power of two from 8, "
                "time at least 1; e.g. (8, 32, 32) or (4, 8, 8)"
            )
        kept = min(3 * patch * patch, frame_coefficients or 2 * latent_channels)
        self.linear_encoder = LinearEncoder(time, patch, kept, latent_channels, lapped)
        self.linear_decoder = LinearDecoder(time, patch, kept, latent_channels, lapped)
        self.encoder_net = EncoderNet(time, patch, encoder_width, latent_channels) if encoder_width else None
        self.decoder_net = DecoderNet(time, patch, width, latent_channels) if width else None
        self.register_buffer("latents_mean", torch.zeros(latent_channels))
        self.register_buffer("latents_std", torch.ones(latent_channels))

    @classmethod
    def from_config(cls, config: Mapping | None = None, **kwargs: object) -> MobiVidVAE | tuple:
        """As diffusers does, with patches that do not overlap where a config is older than the choice."""
        return super().from_config({"lapped": False, **config} if isinstance(config, Mapping) else config, **kwargs)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Latent shape (C, t, h, w) of a clip; errors as `latent_grid`."""
        return self.config.latent_channels, *latent_grid(frames, height, width, self.config.ratio)

    def encode_raw(self, clip: Tensor) -> Tensor:
        """Raw latents (B, C, t, h, w), the posterior's mean, of a clip (B, 3, T, H, W)."""
        self.latent_shape(*clip.shape[2:])
        mean = self.linear_encoder(clip)
        return mean if self.encoder_net is None else mean + self.encoder_net(clip)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W), not clamped, of raw latents."""
        clip = self.linear_decoder(z)
        return clip if self.decoder_net is None else clip + self.decoder_net(z, clip)

    @apply_forward_hook
    def encode(self, clip: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Posterior over raw latents of a clip, as diffusers' autoencoders give it."""
        mean = self.encode_raw(clip)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, LOG_VARIANCE)], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple:
        """`decode_raw`, as diffusers' autoencoders give it."""
        clip = self.decode_raw(z)
        return DecoderOutput(sample=clip) if return_dict else (clip,)

    def forward(self, clip: Tensor) -> Tensor:
        """Reconstruction through the posterior's mean."""
        return self.decode_raw(self.encode_raw(clip))

    @torch.no_grad()
    def fit_linear(self, clips: Tensor) -> None:
        """Initialise the linear path by PCA on clips (N, 3, T, H, W), first over frame patches, then over time.

        A few hundred clips are enough. Afterwards each raw latent channel has unit mean square on them; the encoder's
        net, if any, starts at 3 % of that.
        """
        self.latent_shape(*clips.shape[2:])
        self.linear_encoder.fit(clips)
        self.linear_decoder.invert(self.linear_encoder)
        if self.encoder_net is not None:
            self.encoder_net.start(clips[:16])

    @torch.no_grad()
    def fit_statistics(self, clips: Tensor) -> None:
        """Set the normalisation of latents from clips (N, 3, T, H, W).

        A channel's normalised standard deviation is the root of its share of the decoded pixel energy: halfway between
        channels that are all alike and a PCA's full dynamic range.
        """
        raw = torch.cat([self.encode_raw(part) for part in clips.split(16)])
        std = raw.std(dim=(0, 2, 3, 4))
        if self.encoder_net is None:
            energy = self.linear_decoder.split.rest.weight[:, :, 0, 0].norm(dim=0) * std
        else:
            energy = self._channel_energy(raw[:16]) * std
        share = (energy / energy.square().mean().sqrt()) ** 0.5
        self.latents_mean.copy_(raw.mean(dim=(0, 2, 3, 4)))
        self.latents_std.copy_(std / (share / share.square().mean().sqrt()))

    def _channel_energy(self, raw: Tensor) -> Tensor:
        """Root of the pixel energy that a small unit of each channel decodes to around raw latents (B, C, t, h, w).

        With v of independent signs, E (J^T v)_c^2 = |J e_c|^2: one backward pass through the whole decoder measures all
        channels (Hutchinson's estimator). The mean runs over B t h w places: 3 % error at 16 clips of 48 tokens.
        """
        generator = torch.Generator().manual_seed(0)
        with torch.enable_grad():
            z = raw.detach().requires_grad_()
            clip = self.decode_raw(z)
            signs = torch.randint(0, 2, clip.shape, generator=generator).to(clip) * 2 - 1
            (slope,) = torch.autograd.grad((clip * signs).sum(), z)
        return slope.square().mean(dim=(0, 2, 3, 4)).sqrt()
