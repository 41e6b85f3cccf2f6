"""The video diffusion transformer (DiT), with heads and FFN width free in every block.

Paper: the server DiT and its pruned mobile version. Reconstructed after the published sizes: adaLN-single,
self-attention with 3-D rotary positions, cross-attention to text, GELU FFN, as in LTX-Video, whose class in diffusers
cannot keep the hidden width while heads are pruned. By default q/k norm and rotary positions are per head, GELU is
exact and positions are token indices; LTX-Video's own choices are options of the config.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

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
from mobivid_core.models.rope import RotaryTable, Scale, axis_pairs, rotary_table, scaled_positions, spanning_table

#: Parts of a block, in order.
SUBLAYERS = ("attn1", "attn2", "ffn")
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
        flat = timestep.flatten().float()
        waves = get_timestep_embedding(flat, TIMESTEP_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        embedded = self.linear_2(F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype))))
        modulation = self.linear(F.silu(embedded)).unflatten(-1, (6, -1))
        if timestep.ndim == 1:
            return modulation, embedded
        return modulation.unflatten(0, timestep.shape).transpose(1, 2), embedded.unflatten(0, timestep.shape)


class Context(NamedTuple):
    """What every block of one batch shares."""

    text: Tensor  # (B, L, hidden) projected
    mask: Tensor | None  # (B, 1, 1, L)
    modulation: Tensor  # see `Modulation`, as the next
    embedded: Tensor
    table: RotaryTable  # of the N tokens
    grid: tuple[int, ...]  # (t, h, w)


class TransformerBlock(nn.Module):
    """Modulated self-attention, cross-attention, modulated feed-forward, each added to the residual stream."""

    def __init__(
        self, hidden: int, head_dim: int, self_heads: int, cross_heads: int, ffn_width: int,
        *, qk_norm: str = "per_head", gelu: str = "exact", rope_heads: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attn1 = Attention(hidden, self_heads, head_dim, qk_norm, rope_heads)
        self.attn2 = Attention(hidden, cross_heads, head_dim, qk_norm)
        self.ffn = FeedForward(hidden, ffn_width, gelu)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, hidden))

    def forward(
        self, x: Tensor, text: Tensor, modulation: Tensor, table: RotaryTable,
        mask: Tensor | None = None, gates: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """One block on token states x (B, N, hidden); the next four as in `Context`, `gates` as `Gates.of_block`."""
        self_gate, cross_gate, ffn_gate, block_gate = gates or (None, None, None, None)
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = self.vectors(modulation)
        start = x
        x = x + gate_attn * self.attn1(modulated(x, shift_attn, scale_attn), table=table, gate=self_gate)
        x = x + self.attn2(x, context=text, mask=mask, gate=cross_gate)
        x = x + gate_ffn * self.ffn(modulated(x, shift_ffn, scale_ffn), gate=ffn_gate)
        return x if block_gate is None else start + block_gate[..., None, None].to(x.dtype) * (x - start)

    def vectors(self, modulation: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of self-attention, then of the FFN, each (B, 1, hidden) or (B, N, hidden)."""
        modulation = modulation[:, :, None] if modulation.ndim == 3 else modulation
        return (self.scale_shift_table[:, None] + modulation).unbind(1)

    def projections(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """The layer that ends each of `SUBLAYERS`: the one that pruning narrows and the refit solves for."""
        return self.attn1.to_out, self.attn2.to_out, self.ffn.down


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Input of a modulated layer: RMS norm of x (B, N, hidden), scaled and shifted."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


@dataclass
class Gates:
    """A multiplier, (units,) or (B, units), on every unit that pruning can remove; 0 equals physical removal.

    One gate a sample and unit gives per-sample gate gradients from a single backward pass.
    """

    self_heads: list[Tensor]  # one a block: each self-attention head's output, before the out projection
    cross_heads: list[Tensor]  # the same for cross-attention
    ffn: list[Tensor]  # one a block: each FFN neuron, after GELU
    blocks: Tensor  # x + g * (block(x) - x)

    @classmethod
    def ones(cls, sizes: DiTConfig, batch: int | None = None, *, device: torch.device | str | None = None) -> Gates:
        """All units open; with `batch`, one gate for each sample and unit."""
        lead = () if batch is None else (batch,)
        units = ([torch.ones(*lead, n, device=device) for n in own] for own in sizes.units.values())
        return cls(*units, torch.ones(*lead, sizes.blocks, device=device))

    def tensors(self) -> list[Tensor]:
        """Every gate tensor, in a fixed order: self heads, cross heads, FFN, blocks."""
        return [*self.self_heads, *self.cross_heads, *self.ffn, self.blocks]

    def of_block(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gates of block i's self heads, cross heads, neurons, and of the block itself."""
        return self.self_heads[i], self.cross_heads[i], self.ffn[i], self.blocks[..., i]

    def requires_grad_(self) -> Gates:
        """Make every gate a leaf that collects gradients (in place); returns self."""
        for tensor in self.tensors():
            tensor.requires_grad_()
        return self


class MobiVidTransformer3DModel(ModelMixin, ConfigMixin):
    """Text-conditioned velocity predictor on video latents; its arguments are the fields of `DiTConfig` and two more.

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
        rope_theta: float = 10_000.0,  # base of the rotary frequencies
        qk_norm: str = "per_head",
        rope: str = "per_head",
        gelu: str = "exact",
        rope_span: int = 0,
        rope_heads: list[list[int]] | None = None,
        rope_scale: list[float] | None = None,  # LTX-Video's `rope_interpolation_scale` where a call gives none
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
        units = zip(self_heads, cross_heads, ffn_widths, rope_heads or [None] * len(self_heads), strict=True)
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden, head_dim, *widths, qk_norm=qk_norm, gelu=gelu, rope_heads=slices)
            for *widths, slices in units
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
        self, grid: tuple[int, ...], device: torch.device | str | None = None,
        *, scale: Scale | None = None, positions: Tensor | None = None,
    ) -> RotaryTable:  # fmt: skip
        """The rotary table that the blocks take for a latent grid t, h, w.

        Over all heads, `scale` is `rope_interpolation_scale`, None: the config's, and `positions` (B, N, 3) may replace
        the grid's.
        """
        c = self.config
        if c.rope == "per_head":
            return rotary_table(grid, c.head_dim, c.rope_theta, device)
        if positions is None:
            positions = scaled_positions(grid, c.rope_scale if scale is None else scale, device)
        return spanning_table(positions, c.rope_span, c.head_dim, c.rope_theta)

    def forward(
        self,
        hidden_states: Tensor,  # (B, C, t, h, w) noisy latents; any t, h, w
        timestep: Tensor | None,  # (B,) or (B, N) 1000 * sigma; may be None when `modulation` is given
        encoder_hidden_states: Tensor,  # (B, L, text_dim)
        encoder_attention_mask: Tensor | None = None,  # (B, L): bool, integer (true = a real token), or float (added)
        gates: Gates | None = None,
        modulation: Modulation | None = None,  # from `time_embed`
        feature_blocks: Sequence[int] = (),  # blocks whose outputs to return as well
        table: RotaryTable | None = None,  # from `rotary`; None takes the grid's
        return_dict: bool = True,  # False returns (sample, features)
    ) -> Transformer3DOutput | tuple[Tensor, tuple[Tensor, ...]]:
        """Predict the velocity `noise - x0`.

        Raises:
            ParameterError: The latents do not have this model's channels, or a feature block does not exist.
        """
        if hidden_states.ndim != 5 or hidden_states.shape[1] != self.config.in_channels:
            raise ParameterError(
                f"latents must be (B, {self.config.in_channels}, t, h, w), got {tuple(hidden_states.shape)}: pass "
                "latents of the VAE that this transformer was trained with"
            )
        if any(not 0 <= i < len(self.blocks) for i in feature_blocks):
            raise ParameterError(f"feature_blocks must lie in 0..{len(self.blocks) - 1}, got {list(feature_blocks)}")
        given = hidden_states, timestep, encoder_hidden_states, encoder_attention_mask
        x, context = self.enter(*given, modulation=modulation, table=table)
        states = {}
        for i in range(len(self.blocks)):
            x = self.run_block(i, x, context, gates)
            if i in feature_blocks:
                states[i] = x
        sample, features = self.leave(x, context), tuple(states[i] for i in feature_blocks)
        return Transformer3DOutput(sample, features) if return_dict else (sample, features)

    def enter(
        self, latents: Tensor, timestep: Tensor | None, text: Tensor, mask: Tensor | None = None,
        *, modulation: Modulation | None = None, table: RotaryTable | None = None,
    ) -> tuple[Tensor, Context]:  # fmt: skip
        """`forward` before the first block, with its arguments: token states (B, N, hidden), and what blocks share."""
        grid = tuple(latents.shape[2:])
        table = self.rotary(grid, latents.device) if table is None else table
        x, text = self.proj_in(latents.flatten(2).transpose(1, 2)), self.caption_projection(text)
        if mask is not None:
            mask = (mask if mask.is_floating_point() else mask.bool())[:, None, None, :]
        vectors, embedded = self.time_embed(timestep) if modulation is None else modulation
        return x, Context(text, mask, vectors, embedded, table, grid)

    def run_block(self, i: int, x: Tensor, context: Context, gates: Gates | None = None) -> Tensor:
        """Token states (B, N, hidden) after block i."""
        shared = context.text, context.modulation, context.table, context.mask, gates and gates.of_block(i)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(self.blocks[i], x, *shared)
        return self.blocks[i](x, *shared)

    def exit_input(self, x: Tensor, context: Context) -> Tensor:
        """What the output projection takes, (B, N, hidden), of the token states after the last block."""
        embedded = context.embedded[:, None] if context.embedded.ndim == 2 else context.embedded
        shift, scale = (self.scale_shift_table[:, None] + embedded[:, None]).unbind(1)
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift

    def leave(self, x: Tensor, context: Context) -> Tensor:
        """`forward` after the last block: (B, N, hidden) -> (B, C, t, h, w)."""
        return self.proj_out(self.exit_input(x, context)).transpose(1, 2).unflatten(2, context.grid)

    @torch.no_grad()
    def _initialise(self) -> None:
        """adaLN-zero style start: the model predicts zero, and every branch starts near the identity.

        The modulation tables are small and random (as in PixArt), so that gates start at about 1/sqrt(hidden);
        cross-attention, which has no gate, and the output start at zero.
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
