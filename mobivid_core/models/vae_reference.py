"""Reference for our VAE: diffusers' LTX-Video autoencoder, small, at the same ratio and latent channels.

LTX-Video's VAE has the paper's ratio, 8x32x32, and is the one architecture of that ratio whose code is public. It
stands beside ours from random weights and around our PCA start: so one sees what start and architecture give.

Simplified: no perceptual or adversarial loss, no noise injection, no timestep conditioning of the decoder; the
posterior's variance is not learnt, as in ours. As in LTX-Video, the decoder is not causal.
"""

from __future__ import annotations

import copy

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

from mobivid_core.errors import ParameterError
from mobivid_core.models.vae import MobiVidVAE, NormalisedLatents

#: Channels of the stages from a quarter of the resolution down; the last is the bottleneck's.
LTX_WIDTHS = (16, 32, 64, 64)


class LTXStyleVAE(NormalisedLatents, nn.Module):
    """`AutoencoderKLLTXVideo` in a small configuration, with the interface that measurements take.

    Around `pca`, a fitted linear codec (`MobiVidVAE` of width 0 at 8x32x32; a ParameterError says if it is not), its
    nets' last layers start at zero; None is LTX-Video's own form, from random weights.
    """

    ratio = (8, 32, 32)

    def __init__(
        self, latent_channels: int = 128, widths: tuple[int, int, int, int] = LTX_WIDTHS, pca: MobiVidVAE | None = None
    ) -> None:
        super().__init__()
        given = pca is not None and (tuple(pca.config.ratio), pca.config.width, pca.config.latent_channels)
        if given and given != (self.ratio, 0, latent_channels):
            raise ParameterError(
                f"the linear start must be a MobiVidVAE of ratio {self.ratio}, width 0, {latent_channels} channels; "
                "got {}, width {}, {} channels".format(*given)
            )
        single, scaled = (1,) * (len(widths) + 1), (True, True, True, False)
        nets = AutoencoderKLLTXVideo(
            latent_channels=latent_channels, block_out_channels=widths, decoder_block_out_channels=widths,
            layers_per_block=single, decoder_layers_per_block=single,
            spatio_temporal_scaling=scaled, decoder_spatio_temporal_scaling=scaled,
        )  # fmt: skip
        self.encoder, self.decoder = nets.encoder, nets.decoder
        self.channels = latent_channels
        self.linear_encoder = self.linear_decoder = None
        self.register_buffer("latents_mean", torch.zeros(latent_channels))
        self.register_buffer("latents_std", torch.ones(latent_channels))
        if pca is not None:
            self.linear_encoder, self.linear_decoder = map(copy.deepcopy, (pca.linear_encoder, pca.linear_decoder))
            for last in (self.encoder.conv_out, self.decoder.conv_out):
                nn.init.zeros_(last.conv.weight)
                nn.init.zeros_(last.conv.bias)

    def encode_raw(self, clip: Tensor) -> Tensor:
        """Raw latents (B, C, t, h, w), the posterior's mean, of a clip (B, 3, T, H, W)."""
        mean = self.encoder(clip)[:, : self.channels]
        return mean if self.linear_encoder is None else mean + self.linear_encoder(clip)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W), not clamped, of raw latents."""
        clip = self.decoder(z)
        return clip if self.linear_decoder is None else clip + self.linear_decoder(z)

    @torch.no_grad()
    def fit_statistics(self, clips: Tensor) -> None:
        """Make the latents of clips (N, 3, T, H, W) zero mean and unit variance a channel."""
        raw = torch.cat([self.encode_raw(part) for part in clips.split(16)])
        self.latents_mean.copy_(raw.mean((0, 2, 3, 4)))
        self.latents_std.copy_(raw.std((0, 2, 3, 4)).clamp(min=1e-6))
