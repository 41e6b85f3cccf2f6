"""Text encoders as packages: transformers' modules with an explicit attention mask.

Paper: CLIP instead of T5 (data/paper claim C27). The miniature's encoder is MiniLM; a CLIP-shaped one with random
weights serves counts, export and timing at paper scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobivid_core.coreml.graphs import MASKED, Graph

#: Smallest positive float16; coremltools stores smaller constants as this.
_TINY = 2.0**-24


class TextStates(nn.Module):
    """Token ids to token states of a transformers text encoder.

    The attention mask is built here and handed over whole: coremltools cannot convert transformers' own mask code.
    """

    def __init__(self, encoder: nn.Module, length: int, *, causal: bool) -> None:
        """Wrap an encoder for sequences of `length`; CLIP is causal, BERT is not."""
        super().__init__()
        self.encoder = encoder
        future = torch.full((length, length), MASKED).triu(1) if causal else torch.zeros(length, length)
        self.register_buffer("future", future[None, None])

    def forward(self, input_ids: Tensor, text_mask: Tensor) -> Tensor:
        """input_ids (1, L) int32, additive text_mask (1, L) -> (1, L, D)."""
        mask = self.future + text_mask[:, None, None, :]
        return self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state


def clip_text_graph(
    *, hidden: int = 768, layers: int = 12, heads: int = 12, vocabulary: int = 49_408, length: int = 77,
    name: str = "text_encoder", seed: int = 0,
) -> Graph:  # fmt: skip
    """A CLIP-shaped text encoder with random weights, for counts, export and timing; defaults: CLIP ViT-L/14's sizes.

    GELU is exact, as in OpenCLIP: the original's x sigmoid(1.702 x) loses 1.702 to float16 rounding (error 4e-5).
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        hidden_act="gelu",
        projection_dim=hidden,
        eos_token_id=vocabulary - 1,
        bos_token_id=vocabulary - 2,
        pad_token_id=vocabulary - 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = CLIPTextModel(config).eval()
        ids = torch.randint(0, vocabulary, (1, length), dtype=torch.int32)
    return text_graph(encoder, ids, torch.ones(1, length, dtype=torch.bool), causal=True, name=name)


def text_graph(encoder: nn.Module, ids: Tensor, mask: Tensor, *, causal: bool, name: str = "text_encoder") -> Graph:
    """Any transformers text encoder at a fixed length; its scalar constants are rounded to float16 in place.

    Args:
        encoder: A transformers text model (pass a copy of one that is needed as it is).
        ids: (1, L) int32 token ids.
        mask: (1, L) bool, True for real tokens.
        causal: True for CLIP, False for BERT.
        name: File name of the package.
    """
    for module in encoder.modules():
        # Constants of the program are rounded as the weights are: 1 / sqrt(32) by 1e-4, and BERT's eps of 1e-12 to the
        # smallest number that float16 has.
        if isinstance(getattr(module, "scaling", None), float):
            module.scaling = _as_stored(module.scaling)
        if isinstance(module, nn.LayerNorm):
            module.eps = _as_stored(module.eps)
    inputs = {"input_ids": ids, "text_mask": torch.zeros(mask.shape).masked_fill(~mask, MASKED)}
    return Graph(name, TextStates(encoder, ids.shape[1], causal=causal), inputs, ("states",))


def _as_stored(value: float) -> float:
    """A positive scalar constant as a float16 package holds it."""
    return max(torch.tensor(value, device="cpu").half().item(), _TINY)
