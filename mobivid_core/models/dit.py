"""The video diffusion transformer (DiT), with heads and FFN width free in every block.

Paper: the server DiT and its pruned mobile version. Reconstructed after the published sizes: adaLN-single,
self-attention with 3-D rotary positions, cross-attention to text, GELU FFN, as in LTX-Video. diffusers'
`LTXVideoTransformer3DModel` cannot keep the hidden width while heads are pruned; this one can, and counts the same
parameters where both can express a model.

By default q/k norm and rotary positions are per head, GELU is exact and positions are token indices. LTX-Video's own
choices are options of the config (`mobivid_core.ltx` imports its checkpoints).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from mobivid_core.errors import ParameterError
from mobivid_core.models.attention import Attention, FeedForward, Gelu
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.counts import TIMESTEP_CHANNELS
from mobivid_core.models.gates import Gates
from mobivid_core.models.rope import RotaryTable, Scale, axis_pairs, rotary_table, scaled_positions, spanning_table

#: (modulation (B, 6, hidden), embedded (B, hidden)): what a timestep becomes. With a timestep for every token:
#: (B, 6, N, hidden) and (B, N, hidden).
Modulation = tuple[Tensor, Tensor]


@dataclass
class Transformer3DOutput(BaseOutput):
    """Output of the DiT."""

    sample: Tensor  # (B, C, t, h, w) velocity
    features: tuple[Tensor, ...] = ()  # (B, N, hidden) token states after each block of `feature_blocks`, in that order


class TimeEmbedding(nn.Module):
    """adaLN-single: one MLP turns the timestep into six modulation vectors shared by all blocks."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIMESTEP_CHANNELS, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear = nn.Linear(hidden, 6 * hidden)

    def forward(self, timestep: Tensor) -> Modulation:
        """timestep: (B,) or (B, N) 1000 * sigma -> see `Modulation`."""
        waves = get_timestep_embedding(
            timestep.flatten().float(), TIMESTEP_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        embedded = self.linear_2(F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype))))
        modulation = self.linear(F.silu(embedded)).unflatten(-1, (6, -1))
        if timestep.ndim == 1:
            return modulation, embedded
        return modulation.unflatten(0, timestep.shape).transpose(1, 2), embedded.unflatten(0, timestep.shape)


class TransformerBlock(nn.Module):
    """Modulated self-attention, cross-attention, modulated feed-forward, each added to the residual stream."""

    def __init__(
        self,
        hidden: int,
        head_dim: int,
        self_heads: int,
        cross_heads: int,
        ffn_width: int,
        *,
        qk_norm: str = "per_head",
        gelu: str = "exact",
        rope_heads: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.attn1 = Attention(hidden, self_heads, head_dim, qk_norm, rope_heads)
        self.attn2 = Attention(hidden, cross_heads, head_dim, qk_norm)
        self.ffn = FeedForward(hidden, ffn_width, gelu)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, hidden))

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        modulation: Tensor,
        table: RotaryTable,
        mask: Tensor | None = None,
        gates: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """One block on token states x (B, N, hidden) and projected text (B, L, hidden).

        Args:
            modulation: (B, 6, hidden) from the timestep, or (B, 6, N, hidden) from one for each token.
            table: Rotary table of the N tokens.
            mask: (B, 1, 1, L) text mask.
            gates: Multipliers of this block's self heads, cross heads, neurons, and of the block itself.
        """
        self_gate, cross_gate, ffn_gate, block_gate = gates or (None, None, None, None)
        values = self.scale_shift_table[:, None] + (modulation[:, :, None] if modulation.ndim == 3 else modulation)
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = values.unbind(1)
        start, width = x, x.shape[-1:]
        attended = self.attn1(
            F.rms_norm(x, width, eps=1e-6) * (1 + scale_attn) + shift_attn, table=table, gate=self_gate
        )
        x = x + gate_attn * attended
        x = x + self.attn2(x, context=text, mask=mask, gate=cross_gate)
        x = x + gate_ffn * self.ffn(F.rms_norm(x, width, eps=1e-6) * (1 + scale_ffn) + shift_ffn, gate=ffn_gate)
        return x if block_gate is None else start + block_gate[..., None, None].to(x.dtype) * (x - start)


class MobiVidTransformer3DModel(ModelMixin, ConfigMixin):
    """Text-conditioned velocity predictor on video latents; its arguments are the fields of `DiTConfig` and:

    Args:
        rope_theta: Base of the rotary frequencies.
        rope_scale: With `rope="across_heads"`, LTX-Video's `rope_interpolation_scale` where a call gives none; None:
            positions are token indices.

    Raises:
        ParameterError: The per-block lists differ in length, or a head is too narrow for three rotary axes.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerBlock"]
    _repeated_blocks = ["TransformerBlock"]

    @register_to_config
    def __init__(
        self,
        hidden: int,
        head_dim: int,
        self_heads: list[int],
        cross_heads: list[int],
        ffn_widths: list[int],
        in_channels: int = 128,
        text_dim: int = 768,
        rope_theta: float = 10_000.0,
        qk_norm: str = "per_head",
        rope: str = "per_head",
        gelu: str = "exact",
        rope_span: int = 0,
        rope_heads: list[list[int]] | None = None,
        rope_scale: list[float] | None = None,
    ) -> None:
        super().__init__()
        if not len(self_heads) == len(cross_heads) == len(ffn_widths):
            raise ParameterError(
                "self_heads, cross_heads and ffn_widths need one entry a block, got "
                f"{len(self_heads)}, {len(cross_heads)} and {len(ffn_widths)} entries"
            )
        axis_pairs(head_dim)
        self.proj_in = nn.Linear(in_channels, hidden)
        self.caption_projection = nn.Sequential(nn.Linear(text_dim, hidden), Gelu(gelu), nn.Linear(hidden, hidden))
        self.time_embed = TimeEmbedding(hidden)
        own_slices = [tuple(block) for block in rope_heads] if rope_heads else [None] * len(self_heads)
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden, head_dim, *units, qk_norm=qk_norm, gelu=gelu, rope_heads=slices)
            for *units, slices in zip(self_heads, cross_heads, ffn_widths, own_slices, strict=True)
        )
        self.scale_shift_table = nn.Parameter(torch.zeros(2, hidden))
        self.proj_out = nn.Linear(hidden, in_channels)
        self.gradient_checkpointing = False
        self._initialise()

    @classmethod
    def from_sizes(cls, cfg: DiTConfig) -> MobiVidTransformer3DModel:
        """An untrained model of the given sizes."""
        return cls(**cfg.as_kwargs())

    @property
    def sizes(self) -> DiTConfig:
        """The sizes this model was built with."""
        given = {f.name: getattr(self.config, f.name) for f in fields(DiTConfig)}
        return DiTConfig.from_kwargs(given | {"rope_heads": given["rope_heads"] or ()})

    def rotary(
        self,
        grid: tuple[int, ...],
        device: torch.device | str | None = None,
        *,
        scale: Scale | None = None,
        positions: Tensor | None = None,
    ) -> RotaryTable:
        """The rotary table that the blocks take for a latent grid t, h, w.

        `scale` is LTX-Video's `rope_interpolation_scale`, None: the config's. `positions` (B, N, 3) are coordinates
        instead of the grid's, for a table over all heads.
        """
        c = self.config
        if c.rope == "per_head":
            return rotary_table(grid, c.head_dim, c.rope_theta, device)
        if positions is None:
            positions = scaled_positions(grid, c.rope_scale if scale is None else scale, device)
        return spanning_table(positions, c.rope_span, c.head_dim, c.rope_theta)

    def time_modulation(self, timestep: Tensor) -> Modulation:
        """What `forward` makes of a timestep, 1000 * sigma, (B,) or (B, N): see `Modulation`.

        Core ML packages take it as an input (float16 would spoil it).
        """
        return self.time_embed(timestep)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        gates: Gates | None = None,
        modulation: Modulation | None = None,
        feature_blocks: Sequence[int] = (),
        table: RotaryTable | None = None,
        return_dict: bool = True,
    ) -> Transformer3DOutput | tuple[Tensor, tuple[Tensor, ...]]:
        """Predict the velocity `noise - x0`.

        Args:
            hidden_states: (B, C, t, h, w) noisy latents; any t, h, w.
            timestep: (B,) or (B, N) 1000 * sigma; may be None when `modulation` is given.
            encoder_hidden_states: (B, L, text_dim) text states.
            encoder_attention_mask: (B, L): bool or integer (true = a real token), or float (added to the scores).
            gates: Multipliers of the prunable units.
            modulation: From `time_modulation`; replaces `timestep`.
            feature_blocks: Indices of the blocks whose outputs to return as well.
            table: From `rotary`; None takes the grid's.
            return_dict: False returns (sample, features).

        Returns:
            The velocity, (B, C, t, h, w), and the features asked for.

        Raises:
            ParameterError: The latents are not (B, C, t, h, w) with this model's channels, or a feature block does
                not exist.
        """
        self._check(hidden_states, feature_blocks)
        grid = tuple(hidden_states.shape[2:])
        table = self.rotary(grid, hidden_states.device) if table is None else table
        x = self.proj_in(hidden_states.flatten(2).transpose(1, 2))
        text = self.caption_projection(encoder_hidden_states)
        mask = None if encoder_attention_mask is None else _attention_mask(encoder_attention_mask)
        vectors, embedded = self.time_modulation(timestep) if modulation is None else modulation
        states = {}
        for i, block in enumerate(self.blocks):
            # of block i: self heads, cross heads, neurons, the block
            units = gates and (gates.self_heads[i], gates.cross_heads[i], gates.ffn[i], gates.blocks[..., i])
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x, text, vectors, table, mask, units)
            else:
                x = block(x, text, vectors, table, mask, units)
            if i in feature_blocks:
                states[i] = x
        embedded = embedded[:, None] if embedded.ndim == 2 else embedded
        shift, scale = (self.scale_shift_table[:, None] + embedded[:, None]).unbind(1)
        velocity = self.proj_out(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        sample = velocity.transpose(1, 2).unflatten(2, grid)
        features = tuple(states[i] for i in feature_blocks)
        return Transformer3DOutput(sample, features) if return_dict else (sample, features)

    def _check(self, latents: Tensor, feature_blocks: Sequence[int]) -> None:
        if latents.ndim != 5 or latents.shape[1] != self.config.in_channels:
            raise ParameterError(
                f"latents must be (B, {self.config.in_channels}, t, h, w), got {tuple(latents.shape)}: pass "
                "latents of the VAE that this transformer was trained with"
            )
        if any(not 0 <= i < len(self.blocks) for i in feature_blocks):
            raise ParameterError(f"feature_blocks must lie in 0..{len(self.blocks) - 1}, got {list(feature_blocks)}")

    @torch.no_grad()
    def _initialise(self) -> None:
        """adaLN-zero style start: the model predicts zero, and every branch starts near the identity.

        Linears are Xavier with zero bias. The modulation tables are small and random (as in PixArt), so that gates
        start at about 1/sqrt(hidden); cross-attention, which has no gate, and the output start at zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if module.weight.numel():
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_embed.linear_1, self.time_embed.linear_2, self.time_embed.linear):
            nn.init.normal_(layer.weight, std=0.02)
        for block in self.blocks:
            nn.init.normal_(block.scale_shift_table, std=self.config.hidden**-0.5)
            nn.init.zeros_(block.attn2.to_out.weight)
        nn.init.normal_(self.scale_shift_table, std=self.config.hidden**-0.5)
        nn.init.zeros_(self.proj_out.weight)


def _attention_mask(mask: Tensor) -> Tensor:
    """(B, L) text mask -> (B, 1, 1, L) for attention; integers become bool, floats stay additive."""
    mask = mask if mask.is_floating_point() else mask.bool()
    return mask[:, None, None, :]
