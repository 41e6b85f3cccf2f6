"""Our transformer with the call signature of diffusers' LTX-Video: what its pipelines take as `transformer`.

    LTXPipeline.from_pretrained(DIR, transformer=MobiVidLTXTransformer.from_pretrained(STUDENT))

Also for `LTXImageToVideoPipeline` (a timestep for each token) and pipelines that pass coordinates (`video_coords`).
Not supported: LoRA files of the unpruned model, whose matrices have other sizes.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - pipelines that load this class look for it
from torch import Tensor

from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.rope import LTX_BASE

#: What diffusers' LTX-Video adds to the scores of padding tokens.
_PADDING = -10_000.0


class MobiVidLTXTransformer(MobiVidTransformer3DModel, CacheMixin):
    """A pruned LTX-Video transformer for diffusers' pipelines; arguments as `MobiVidTransformer3DModel`."""

    @property
    def config(self) -> FrozenDict:
        """The base model's, with the patch sizes that diffusers' pipelines read."""
        return FrozenDict({**super().config, "patch_size": 1, "patch_size_t": 1})

    @classmethod
    def of(cls, model: MobiVidTransformer3DModel) -> MobiVidLTXTransformer:
        """The same transformer, sharing its tensors."""
        with torch.device("meta"):
            made = cls.from_config({k: v for k, v in model.config.items() if not k.startswith(("_", "patch_"))})
        made.load_state_dict(model.state_dict(), assign=True)
        return made.train(model.training)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor,
        encoder_attention_mask: Tensor | None = None,
        num_frames: int | None = None, height: int | None = None, width: int | None = None,
        rope_interpolation_scale: tuple[float, float, float] | None = None, video_coords: Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None, return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:  # fmt: skip
        """diffusers' call: packed latents (B, N, C) to (B, N, C) with N = `num_frames` * `height` * `width`.

        The mask is (B, L), 1 for real tokens, or (B, 1, L), added to the scores; the scale is seconds a latent frame,
        pixels a latent row and column; `video_coords` (B, 3, N) replace the grid's; `attention_kwargs` is not read.
        """
        grid = (1, 1, hidden_states.shape[1]) if num_frames is None else (num_frames, height, width)
        positions = None
        if video_coords is not None:
            base = torch.tensor(LTX_BASE, dtype=torch.float32, device=video_coords.device)
            positions = video_coords.float().transpose(1, 2) / base
        scale = None if rope_interpolation_scale is None else tuple(rope_interpolation_scale)
        table = self.rotary(grid, hidden_states.device, scale=scale, positions=positions)
        mask = encoder_attention_mask
        if mask is not None:
            # Added, as diffusers does: a caption without a single real token attends to all of its padding alike.
            mask = (1 - mask.to(hidden_states.dtype)) * _PADDING if mask.ndim == 2 else mask.flatten(1)
            mask = mask.to(hidden_states.dtype)
        latents = hidden_states.transpose(1, 2).unflatten(2, grid)
        sample, _ = super().forward(latents, timestep, encoder_hidden_states, mask, table=table, return_dict=False)
        tokens = sample.flatten(2).transpose(1, 2)
        return Transformer2DModelOutput(sample=tokens) if return_dict else (tokens,)
