"""The pipeline with tiny untrained parts, as diffusers tests its own."""

import warnings

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.sampling import make_scheduler, sample_latents
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.text import encode_text, load_text_encoder, load_tokenizer
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.pipeline.pipeline import MobiVidPipeline
from mobivid_core.train import precision

SIZES = DiTConfig.uniform(blocks=2, heads=2, ffn=8, hidden=16, head_dim=8, in_channels=4, text_dim=12)
SMALL = {"num_frames": 9, "height": 32, "width": 64, "num_inference_steps": 2}


def _transformer(text_dim=12):
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(DiTConfig(**{**vars(SIZES), "text_dim": text_dim})).eval()
    for parameter in model.parameters():  # an untrained model predicts zero, which would hide errors
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def pipe():
    torch.manual_seed(0)
    vae = MobiVidVAE(latent_channels=4, width=4).eval()
    tiny = BertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    encoder = BertModel(tiny, add_pooling_layer=False).eval()
    made = MobiVidPipeline(vae, _transformer(), make_scheduler("euler"), load_tokenizer(), encoder)
    made.set_progress_bar_config(disable=True)
    return made


def _seed(n=0):
    return torch.Generator().manual_seed(n)


def test_output_types_show_the_same_clip(pipe):
    frames = {
        k: pipe("a red star", generator=_seed(), output_type=k, **SMALL).frames for k in ("np", "pt", "pil", "latent")
    }
    assert frames["np"].shape == (1, 9, 32, 64, 3) and 0 <= frames["np"].min() and frames["np"].max() <= 1
    np.testing.assert_array_equal(frames["pt"].permute(0, 1, 3, 4, 2).numpy(), frames["np"])
    assert len(frames["pil"]) == 1 and len(frames["pil"][0]) == 9
    np.testing.assert_allclose(np.asarray(frames["pil"][0][3]) / 255, frames["np"][0, 3], atol=0.5 / 255 + 1e-6)
    decoded = (pipe.vae.decode_latents(frames["latent"]) + 1) / 2
    torch.testing.assert_close(decoded.transpose(1, 2), frames["pt"])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_agrees_with_the_plain_sampler(pipe, guidance):
    """Two implementations of the loop: the pipeline's and `sample_latents`."""
    prompts = ["a red star moving right", "a blue fish"]
    noise = torch.randn(2, 4, 2, 1, 2, generator=_seed())
    got = pipe(prompts, latents=noise, guidance_scale=guidance, output_type="latent", **SMALL).frames
    condition = Condition(*pipe.encode_prompt(prompts), *pipe.encode_prompt([""]))
    expected = sample_latents(pipe.transformer, condition, noise, 2, guidance=guidance)
    torch.testing.assert_close(got, expected)  # same operations, other batch shapes: round-off


def test_prompt_seed_and_guidance_matter(pipe):
    base = pipe("a red star", generator=_seed(), **SMALL).frames
    np.testing.assert_array_equal(base, pipe("a red star", generator=_seed(), **SMALL).frames)
    for other in (
        pipe("a blue fish", generator=_seed(), **SMALL),
        pipe("a red star", generator=_seed(1), **SMALL),
        pipe("a red star", generator=_seed(), guidance_scale=1.0, **SMALL),
        pipe("a red star", negative_prompt="a blue fish", generator=_seed(), **SMALL),
    ):
        assert np.abs(base - other.frames).max() > 0


def test_a_prompt_does_not_depend_on_its_neighbours(pipe):
    pair = pipe(["a red star", "a blue fish"], generator=[_seed(3), _seed(4)], output_type="latent", **SMALL).frames
    alone = pipe("a blue fish", generator=_seed(4), output_type="latent", **SMALL).frames
    torch.testing.assert_close(pair[1:], alone)


def test_the_callback_sees_and_replaces_latents(pipe):
    seen = []

    def zero(pipeline, step, timestep, values):
        seen.append((step, round(timestep.item())))
        return {"latents": torch.zeros_like(values["latents"])}

    got = pipe("a", output_type="latent", callback_on_step_end=zero, **SMALL).frames
    assert seen == [(0, 1000), (1, 500)] and got.abs().max() == 0


def test_tuple_output(pipe):
    (frames,) = pipe("a red star", return_dict=False, **SMALL)
    assert frames.shape == (1, 9, 32, 64, 3)


def test_save_and_load_round_trip_with_own_text_encoder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = MobiVidPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    results = [p("a red star", generator=_seed(), **SMALL).frames for p in (pipe, again)]
    np.testing.assert_array_equal(*results)
    assert not list(tmp_path.rglob("*.bin")) and list(tmp_path.rglob("*.safetensors"))


def test_the_packaged_text_encoder_is_used_but_not_saved(tmp_path):
    vae = MobiVidVAE(latent_channels=4, width=0)
    pipe = MobiVidPipeline(vae, _transformer(text_dim=384), make_scheduler("unipc"))
    states, mask = pipe.encode_prompt(["a red star moving right"])
    expected, expected_mask = encode_text(["a red star moving right"])
    torch.testing.assert_close(states, expected)
    assert torch.equal(mask, expected_mask)
    assert pipe.text_encoder is not load_text_encoder()
    pipe.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model_index.json", "scheduler", "transformer", "vae"]
    assert pipe.text_encoder is not None
    again = MobiVidPipeline.from_pretrained(tmp_path)
    assert type(again.scheduler) is type(pipe.scheduler) and again.text_encoder is not None


def test_sizes_that_do_not_fit_name_the_nearest(pipe):
    with pytest.raises(ParameterError, match=r"17 frames of 128x128"):
        pipe("a", num_frames=16)
    with pytest.raises(ParameterError, match=r"17 frames of 96x128"):
        pipe("a", height=100)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"prompt": 3}, "a caption"),
        ({"prompt": []}, "non-empty"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"] * 3}, "one a prompt"),
        ({"prompt": "a", "output_type": "gif"}, "np, pt, pil, latent"),
        ({"prompt": "a", "latents": torch.zeros(1)}, "latents must be"),
        ({"prompt": "a", "num_inference_steps": 0}, "at least 1"),
    ],
)
def test_bad_calls_say_what_is_expected(pipe, bad, message):
    with pytest.raises(ParameterError, match=message):
        pipe(**{**SMALL, **bad})


def test_parts_that_do_not_fit_are_refused(pipe):
    with pytest.raises(ParameterError, match="latent channels"):
        MobiVidPipeline(MobiVidVAE(latent_channels=8, width=0), _transformer(), make_scheduler())
    with pytest.raises(ParameterError, match="384 wide"):
        MobiVidPipeline(MobiVidVAE(latent_channels=4, width=0), _transformer(), make_scheduler())
    with pytest.raises(ParameterError, match="both"):
        MobiVidPipeline(pipe.vae, pipe.transformer, pipe.scheduler, tokenizer=pipe.tokenizer)


def test_a_broken_folder_is_one_clear_error(pipe, tmp_path):
    with pytest.raises(CheckpointError, match="model_index.json"):
        MobiVidPipeline.from_pretrained(tmp_path)
    pipe.save_pretrained(tmp_path)
    weights = next((tmp_path / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="corrupt"):
        MobiVidPipeline.from_pretrained(tmp_path)
    with pytest.raises(ParameterError, match="pickles"):
        pipe.save_pretrained(tmp_path, safe_serialization=False)


def test_a_distilled_student_has_its_own_defaults_and_warns_about_others(pipe, tmp_path):
    card = {"steps": 4, "guidance": 1.0, "solver": "euler", "sigmas": [1, 0.75, 0.5, 0.25, 0], "recipe": {}}
    parts = (pipe.vae, pipe.transformer, make_scheduler("euler"), pipe.tokenizer, pipe.text_encoder)
    student = MobiVidPipeline(*parts, distilled=card)
    student.set_progress_bar_config(disable=True)
    size = {k: v for k, v in SMALL.items() if k != "num_inference_steps"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        own = student("a", generator=_seed(), output_type="latent", **size).frames
        same = student("a", generator=_seed(), output_type="latent", num_inference_steps=4, guidance_scale=1, **size)
    assert torch.equal(own, same.frames)
    plain = pipe("a", generator=_seed(), output_type="latent", num_inference_steps=4, guidance_scale=1, **size).frames
    assert torch.equal(own, plain)
    with pytest.warns(UserWarning, match="distilled for 4 steps at guidance 1, asked for 8 at 1"):
        student("a", num_inference_steps=8, **size)
    with pytest.warns(UserWarning, match="asked for 4 at 3"):
        student("a", guidance_scale=3.0, **size)
    student.save_pretrained(tmp_path)
    back = MobiVidPipeline.from_pretrained(tmp_path)
    assert back.config.distilled == {"steps": 4, "guidance": 1.0}


def test_image_to_video_starts_with_the_image(pipe):
    image = torch.rand(3, 32, 64, generator=_seed(1))
    asked = {**SMALL, "generator": _seed(), "output_type": "latent"}
    held = pipe(["a", "b"], image=image, **asked).frames
    wanted = pipe.vae.encode_latents(2 * image[None, :, None] - 1)
    torch.testing.assert_close(held[:, :, :1], wanted.expand(2, -1, -1, -1, -1))
    free = pipe(["a", "b"], **{**asked, "generator": _seed()}).frames
    assert not torch.allclose(held[:, :, 1:], free[:, :, 1:])  # the other frames follow it
    with pytest.raises(ParameterError, match="one image or 2"):
        pipe(["a", "b"], image=torch.rand(3, 3, 32, 64), **SMALL)
    with pytest.raises(ParameterError, match="image must be"):
        pipe("a", image="cat.png", **SMALL)


def test_bfloat16_shows_nearly_the_same_clip_and_is_off_unless_asked(pipe, monkeypatch):
    plain = pipe("a red circle", generator=_seed(), **SMALL).frames
    half = pipe("a red circle", generator=_seed(), bf16=True, **SMALL).frames
    assert half.dtype == np.float32
    # bfloat16 has 8 bits of precision: a few grey levels with random weights of .2, whose errors grow faster
    assert 0 < np.abs(half - plain).mean() < 0.02
    monkeypatch.setattr(precision, "choose", lambda kinds: precision.Precision(True, "told so"))
    np.testing.assert_array_equal(pipe("a red circle", generator=_seed(), bf16=None, **SMALL).frames, half)
    monkeypatch.setattr(precision, "choose", lambda kinds: precision.Precision(False, "told so"))
    np.testing.assert_array_equal(pipe("a red circle", generator=_seed(), bf16=None, **SMALL).frames, plain)
