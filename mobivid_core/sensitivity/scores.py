"""Scores of prunable units: one number for each block, head and FFN neuron, and how they were obtained.

A score is the expected rise of the KD loss when that unit alone is removed (same unit for every level, so that
blocks, heads and neurons can compete in one plan). Stored as safetensors plus JSON, never as a pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.files import write_bytes, write_text
from mobivid_core.models.config import DiTConfig

UNIT_KINDS = ("blocks", "self_heads", "cross_heads", "ffn")


@dataclass(frozen=True)
class Scores:
    """One score per prunable unit of a model."""

    blocks: np.ndarray  # (n,) for n blocks
    self_heads: tuple[np.ndarray, ...]  # one (H_b,) array a block; likewise `cross_heads`
    cross_heads: tuple[np.ndarray, ...]
    ffn: tuple[np.ndarray, ...]  # one array a block: (F_b,) per neuron, or (S,) for S equal contiguous slices
    estimator: str
    passes: float = 0.0  # cost in forward equivalents over the calibration set (a backward counts 2)
    seconds: float = 0.0  # wall time spent; 0 where not measured
    notes: dict = field(default_factory=dict)  # free facts (probes, samples, features), JSON values only

    def flat(self, kind: str) -> np.ndarray:
        """All scores of one kind, block by block; `kind` is one of `UNIT_KINDS`, "heads" or "widths" (heads + FFN)."""
        if kind == "blocks":
            return self.blocks
        kinds = {"heads": UNIT_KINDS[1:3], "widths": UNIT_KINDS[1:]}.get(kind, (kind,))
        if not set(kinds) <= set(UNIT_KINDS):
            raise ParameterError(f"unknown unit kind {kind!r}; use one of {UNIT_KINDS} or 'heads', 'widths'")
        return np.concatenate([np.asarray(block) for k in kinds for block in getattr(self, k)])

    def ffn_slices(self, slices: int) -> tuple[np.ndarray, ...]:
        """Per-neuron scores summed over `slices` contiguous slices of each block (ignores interaction inside one)."""
        return tuple(np.add.reduceat(f, [start for start, _ in slice_bounds(len(f), slices)]) for f in self.ffn)

    def check(self, sizes: DiTConfig) -> None:
        """Raise `ParameterError` unless there is one finite score per unit of `sizes`."""
        got = (len(self.blocks), *(tuple(map(len, getattr(self, k))) for k in UNIT_KINDS[1:]))
        want = (sizes.blocks, *sizes.units.values())
        if got != want:
            raise ParameterError(
                f"scores for (blocks, self heads, cross heads, neurons) {got} do not fit a model of {want}; "
                "score the model that is to be pruned (per neuron, not per slice)"
            )
        for kind in UNIT_KINDS:
            values = np.asarray(self.flat(kind), dtype=float)
            wrong = np.count_nonzero(~np.isfinite(values))
            if wrong:  # a NaN sorts last: its unit would stay whatever it is worth
                what = f"{wrong} of {values.size} {kind} scores of {self.estimator!r}"
                raise ParameterError(f"{what} are not finite; score the model again")

    def save(self, folder: Path) -> None:
        """Write `<estimator>.safetensors` and `<estimator>.json` into `folder`."""
        folder = Path(folder)
        values = {"blocks": self.blocks}
        values |= {f"{kind}.{b}": own for kind in UNIT_KINDS[1:] for b, own in enumerate(getattr(self, kind))}
        tensors = {name: np.ascontiguousarray(own, dtype=np.float64) for name, own in values.items()}
        write_bytes(folder / f"{self.estimator}.safetensors", save(tensors))
        facts = {"estimator": self.estimator, "passes": self.passes, "seconds": self.seconds, "notes": self.notes}
        write_text(folder / f"{self.estimator}.json", json.dumps(facts, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, estimator: str) -> Scores:
        """Read what `save` wrote; `CheckpointError` where the files are missing or unreadable."""
        path = Path(folder) / f"{estimator}.safetensors"
        try:
            tensors = load_file(path)
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, SafetensorError, ValueError) as error:
            raise CheckpointError(
                f"no readable scores at {path} ({error}); make them with notebook 03, or for weights of your own with "
                "`mobivid score`"
            ) from error
        parts = {k: tuple(tensors[f"{k}.{b}"] for b in range(len(tensors["blocks"]))) for k in UNIT_KINDS[1:]}
        return cls(blocks=tensors["blocks"], **parts, **facts)


def slice_bounds(width: int, slices: int) -> list[tuple[int, int]]:
    """(start, end) of `slices` nearly equal contiguous slices of `range(width)`."""
    if not 1 <= slices <= width:
        raise ParameterError(f"cannot cut {width} neurons into {slices} slices; use 1 to {width}")
    return list(pairwise(i * width // slices for i in range(slices + 1)))
