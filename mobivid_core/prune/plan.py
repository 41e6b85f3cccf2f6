"""The pruning plan: which blocks, heads and FFN neurons stay. A small JSON file, independent of any weights.

Paper: tri-level pruning (blocks, attention heads, FFN width).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.files import write_text
from mobivid_core.models.config import DiTConfig, runs
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.sensitivity.scores import UNIT_KINDS

LEVELS = ("blocks", "heads", "ffn")
_FORMAT = 1
Kept = tuple[tuple[int, ...], ...]

#: What writes plans, for errors.
MAKER = "notebook 04, or for weights of your own with `mobivid plan`"


@dataclass(frozen=True)
class PruningPlan:
    """What is kept, as indices into the source model."""

    source: DiTConfig  # sizes of the model the indices refer to
    keep_blocks: tuple[int, ...]  # kept blocks, ascending
    self_heads: Kept  # for each kept block the kept self-attention heads, ascending
    cross_heads: Kept  # likewise for cross-attention
    ffn: Kept  # likewise for FFN neurons
    notes: dict = field(default_factory=dict)  # how the plan was made (method, budget ...), JSON values only

    def __post_init__(self) -> None:
        _check_indices("keep_blocks", self.keep_blocks, self.source.blocks)
        for name, widths in self.source.units.items():
            kept, blocks = getattr(self, name), len(self.keep_blocks)
            if len(kept) != blocks:
                raise ParameterError(f"plan.{name} has {len(kept)} entries; expected one a kept block, {blocks}")
            for block, units in zip(self.keep_blocks, kept, strict=True):
                _check_indices(f"{name} of block {block}", units, widths[block])

    @classmethod
    def keep_all(cls, sizes: DiTConfig) -> PruningPlan:
        """The plan that removes nothing."""
        return cls.of_blocks(sizes, range(sizes.blocks), {})

    @classmethod
    def of_blocks(cls, sizes: DiTConfig, keep_blocks: Sequence[int], notes: dict) -> PruningPlan:
        """The plan that keeps whole blocks."""
        whole = {kind: tuple(tuple(range(widths[b])) for b in keep_blocks) for kind, widths in sizes.units.items()}
        return cls(sizes, tuple(keep_blocks), **whole, notes=notes)

    @property
    def sizes(self) -> DiTConfig:
        """Sizes of the pruned model."""
        kept = zip(self.keep_blocks, self.self_heads, strict=True)
        slices = self.source.rope_heads and tuple(tuple(self.source.rope_heads[b][h] for h in own) for b, own in kept)
        own, cross, ffn = (tuple(map(len, units)) for units in (self.self_heads, self.cross_heads, self.ffn))
        return replace(self.source, self_heads=own, cross_heads=cross, ffn_widths=ffn, rope_heads=slices)

    @property
    def parameters(self) -> int:
        """Parameters of the pruned model, by arithmetic."""
        return int(parameter_cost(self.source).total(self.sizes))

    @property
    def removed_blocks(self) -> tuple[int, ...]:
        """Blocks that the plan removes."""
        return tuple(b for b in range(self.source.blocks) if b not in self.keep_blocks)

    def stands_for(self, student_block: int) -> int:
        """The last teacher block that a kept block replaces: the one before the next kept block."""
        return (*self.keep_blocks[1:], self.source.blocks)[student_block] - 1

    def to_json(self) -> str:
        """Readable JSON; kept units are written as runs, e.g. "0-5 7 9-12"."""
        kept = {n: [_to_runs(units) for units in getattr(self, n)] for n in UNIT_KINDS[1:]}
        record = {
            "format": _FORMAT,
            "source": self.source.as_kwargs(),
            "parameters": self.parameters,
            "notes": self.notes,
            "keep_blocks": list(self.keep_blocks),
            **kept,
        }
        # One line a key, one line a block: short enough to read and to compare in a diff.
        texts = {key: json.dumps(value) for key, value in record.items()}
        texts |= {key: "[\n" + ",\n".join(f"  {json.dumps(block)}" for block in kept[key]) + "\n ]" for key in kept}
        return "{\n" + ",\n".join(f" {json.dumps(key)}: {text}" for key, text in texts.items()) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Inverse of `to_json`; `CheckpointError` when the text is not a plan."""
        try:
            record = json.loads(text)
            if record["format"] != _FORMAT:
                raise CheckpointError(f"plan format {record['format']!r} is unknown; this version reads {_FORMAT}")
            source = DiTConfig.from_kwargs(record["source"])
            kept = {n: tuple(_from_runs(units) for units in record[n]) for n in UNIT_KINDS[1:]}
            return cls(source, tuple(record["keep_blocks"]), **kept, notes=record["notes"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not a pruning plan: {error!r}; make it again with {MAKER}") from error

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path) -> PruningPlan:
        """Read a plan; `CheckpointError` when it is missing or not a plan."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"no readable pruning plan at {path} ({error}); make it with {MAKER}") from error


def _check_indices(what: str, indices: Sequence[int], width: int) -> None:
    if list(indices) != sorted(set(indices)) or (indices and not 0 <= indices[0] <= indices[-1] < width):
        raise ParameterError(f"{what} must be ascending, distinct and within 0..{width - 1}; got {list(indices)[:12]}")


def _to_runs(indices: Sequence[int]) -> str:
    """(0, 1, 2, 5) -> "0-2 5"."""
    return " ".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in runs(indices))


def _from_runs(text: str) -> tuple[int, ...]:
    """Inverse of `_to_runs`."""
    ends = (part.partition("-") for part in text.split())
    return tuple(i for first, _, last in ends for i in range(int(first), int(last or first) + 1))
