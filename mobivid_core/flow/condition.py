"""Captions as model inputs: token states and mask, with the empty caption that guidance needs.

Every loss and every sampler takes a `Condition`, so that states and mask stay together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mobivid_core.errors import ParameterError


@dataclass(frozen=True)
class Condition:
    """N encoded captions."""

    text: Tensor  # (N, L, D) token states
    mask: Tensor  # (N, L) bool, True at real tokens
    # (1, M, D) token states of "", or (N, M, D) where each caption has its own negative one; None where nothing is
    # guided or dropped
    null_text: Tensor | None = None
    null_mask: Tensor | None = None  # (1, M) or (N, M) bool

    def __len__(self) -> int:
        return len(self.text)

    def take(self, index: Tensor | slice) -> Condition:
        """The captions at `index`."""
        own = self.null_text is not None and len(self.null_text) > 1
        null = [t[index] if own else t for t in (self.null_text, self.null_mask)]
        return Condition(self.text[index], self.mask[index], *null)

    def to(self, device: str | torch.device) -> Condition:
        """All tensors on `device`."""
        return Condition(*(None if t is None else t.to(device) for t in self.tensors))

    def repeated(self, times: int) -> Condition:
        """Each caption `times` times in a row, for several clips of one prompt."""
        return self.take(torch.arange(len(self), device=self.text.device).repeat_interleave(times))

    def padded(self, length: int) -> Condition:
        """The captions padded to `length` tokens, for an empty caption that is longer."""
        missing = length - self.text.shape[1]
        return replace(self, text=F.pad(self.text, (0, 0, 0, missing)), mask=F.pad(self.mask, (0, missing)))

    def empty(self) -> Condition:
        """The empty caption in the place of each, padded to the captions' length.

        Raises:
            ParameterError: There is none, it is longer than the captions, or it has another width.
        """
        if self.null_text is None or self.null_mask is None:
            raise ParameterError("the empty caption is missing: pass null_text and null_mask (encode_text(['']))")
        missing = self.text.shape[1] - self.null_text.shape[1]
        if missing < 0 or self.null_text.shape[2] != self.text.shape[2]:
            raise ParameterError(
                f"the empty caption's states {tuple(self.null_text.shape)} do not fit the captions' "
                f"{tuple(self.text.shape)}: encode both with the same encoder and max_length"
            )
        states = F.pad(self.null_text, (0, 0, 0, missing)).expand(len(self), -1, -1)
        return Condition(states, F.pad(self.null_mask.bool(), (0, missing)).expand(len(self), -1))

    def dropped(self, probability: float, generator: torch.Generator) -> Condition:
        """Each caption replaced by the empty one with `probability`, as guidance needs both in training.

        A generator draws on its own device, so that a CPU seed means the same on a GPU.
        """
        empty = self.empty()
        drawn = torch.rand(len(self), generator=generator, device=generator.device).to(self.text.device) < probability
        text = torch.where(drawn[:, None, None], empty.text, self.text)
        return replace(self, text=text, mask=torch.where(drawn[:, None], empty.mask, self.mask))

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Everything that a result depends on, for keys of caches."""
        return self.text, self.mask, self.null_text, self.null_mask
