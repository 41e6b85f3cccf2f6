"""Sizes of the diffusion transformers: the paper's (reconstructed) and the trained miniatures.

Paper: section on tri-level pruning. The block and head counts and FFN widths come from
data/paper/claims.csv (C20 to C22); hidden width and head width are assumed (32 x 64 = 2048).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

#: What the options of a transformer's layers may be; the first is the project's own, the second LTX-Video's.
_OPTIONS = {"qk_norm": ("per_head", "across_heads"), "rope": ("per_head", "across_heads"), "gelu": ("exact", "tanh")}


@dataclass(frozen=True)
class DiTConfig:
    """Widths of one diffusion transformer; heads and FFN widths are per block."""

    hidden: int  # residual width, kept by pruning
    head_dim: int  # width of one attention head
    self_heads: tuple[int, ...]  # self-attention heads of each block; its length is the number of blocks
    cross_heads: tuple[int, ...]  # cross-attention heads of each block
    ffn_widths: tuple[int, ...]  # FFN hidden width of each block
    in_channels: int = 128  # latent channels in and out
    text_dim: int = 768  # width of the text encoder's token states
    qk_norm: str = "per_head"  # "across_heads": one RMS norm of q and k over all heads of a layer
    rope: str = "per_head"  # "across_heads": one rotary table over the width of all heads, a slice for each
    gelu: str = "exact"  # or "tanh"
    rope_span: int = 0  # with `rope="across_heads"`, heads that the table spans: those of the unpruned model
    # With `rope="across_heads"`, for each block the table's slice of every self-attention head
    rope_heads: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not len(self.self_heads) == len(self.cross_heads) == len(self.ffn_widths):
            raise ValueError(
                "self_heads, cross_heads and ffn_widths need one entry a block, got "
                f"{len(self.self_heads)}, {len(self.cross_heads)} and {len(self.ffn_widths)}"
            )
        for name, allowed in _OPTIONS.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.rope == "per_head" and (self.rope_span or self.rope_heads):
            raise ValueError("rope_span and rope_heads belong to rope='across_heads'")
        if self.rope == "across_heads":
            slices = {h for block in self.rope_heads for h in block}
            if tuple(map(len, self.rope_heads)) != self.self_heads or not slices <= set(range(self.rope_span)):
                raise ValueError("rope_heads needs one slice in 0..rope_span - 1 for every self-attention head")

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.self_heads)

    @property
    def units(self) -> dict[str, tuple[int, ...]]:
        """Number of units in each block, by kind."""
        return {"self_heads": self.self_heads, "cross_heads": self.cross_heads, "ffn": self.ffn_widths}

    @property
    def widths(self) -> list[tuple[int, int, int]]:
        """Self heads, cross heads and FFN neurons of each block."""
        return list(zip(*self.units.values(), strict=True))

    @classmethod
    def uniform(cls, *, blocks: int, heads: int, ffn: int, hidden: int, head_dim: int, **other: Any) -> DiTConfig:
        """The same heads (self and cross) and FFN width in every block."""
        return cls(hidden, head_dim, (heads,) * blocks, (heads,) * blocks, (ffn,) * blocks, **other)

    def widths_alone(self) -> DiTConfig:
        """The same widths with default layer options: for costs, which follow from widths, by changing them freely."""
        return replace(self, qk_norm="per_head", rope="per_head", gelu="exact", rope_span=0, rope_heads=())

    def as_kwargs(self) -> dict:
        """Keyword arguments for `MobiVidTransformer3DModel` (lists, so that the config is JSON).

        Layer options that have their default are left out: files of models without them stay as they were.
        """
        options = {f.name: f.default for f in fields(self)[7:]}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: _nested(v, list) for k, v in values.items() if k not in options or v != options[k]}

    @classmethod
    def from_kwargs(cls, values: dict[str, Any]) -> DiTConfig:
        """Inverse of `as_kwargs`; lists become tuples."""
        return cls(**{k: _nested(v, tuple) for k, v in values.items()})


def _nested(value: Any, kind: type) -> Any:
    """Lists and tuples, at every depth, as one of them."""
    return kind(_nested(v, kind) for v in value) if isinstance(value, (list, tuple)) else value


def runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending indices as (start, stop) of their runs: (0, 1, 2, 5) -> [(0, 3), (5, 6)]."""
    found: list[tuple[int, int]] = []
    for i in indices:
        start = found.pop()[0] if found and found[-1][1] == i else i
        found.append((start, i + 1))
    return found


#: The paper's 2 B server model as reconstructed: 1,916,569,728 parameters (data/paper, class `derived`).
SERVER = DiTConfig.uniform(blocks=28, heads=32, ffn=8192, hidden=2048, head_dim=64)
#: The paper's 0.9 B mobile model as reconstructed: 959,697,024 parameters (data/paper, class `derived`).
MOBILE = DiTConfig.uniform(blocks=20, heads=20, ffn=6144, hidden=2048, head_dim=64)
#: Miniature teacher with the paper's proportions (attention : FFN = 1 : 1), trained for real.
MINI_SERVER = DiTConfig.uniform(blocks=14, heads=8, ffn=640, hidden=160, head_dim=20, in_channels=32, text_dim=384)
#: Miniature student at the paper's cut (20/28 blocks, 20/32 heads, 6144/8192 FFN).
MINI_MOBILE = DiTConfig.uniform(blocks=10, heads=5, ffn=480, hidden=160, head_dim=20, in_channels=32, text_dim=384)
#: Smallest sizes that still walk through every code path.
SMOKE_SERVER = DiTConfig.uniform(blocks=4, heads=4, ffn=128, hidden=32, head_dim=8, in_channels=16, text_dim=384)
SMOKE_MOBILE = DiTConfig.uniform(blocks=3, heads=3, ffn=96, hidden=32, head_dim=8, in_channels=16, text_dim=384)
