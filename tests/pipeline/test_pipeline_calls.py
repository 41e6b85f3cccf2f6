"""The pipeline called as people call diffusers' own: images, prompts, states, callbacks, types, folders, offloading."""

from __future__ import annotations

import copy
import io

import diffusers
import numpy as np
import pytest
import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import ModelHook, add_hook_to_module
from PIL import Image
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from mobivid_core.errors import CheckpointError, ParameterError
from mobivid_core.flow.sampling import check_scheduler, make_scheduler
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.models.first_frame import encode_image
from mobivid_core.models.text import load_tokenizer
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.pipeline.pipeline import MobiVidPipeline

SIZES = DiTConfig.uniform(blocks=1, heads=2, ffn=8, hidden=16, head_dim=8, in_channels=4, text_dim=12)
SMALL = {"num_frames": 9, "height": 32, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
CARD = {"steps": 4, "guidance": 1.0}


@pytest.fixture(scope="module")
def parts() -> dict:
    torch.manual_seed(0)
    transformer = MobiVidTransformer3DModel.from_sizes(SIZES).eval()
    for parameter in transformer.parameters():  # an untrained model predicts zero, which would hide errors
        torch.nn.init.normal_(parameter, std=0.2)
    tiny = BertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    encoder = BertModel(tiny, add_pooling_layer=False).eval()
    vae = MobiVidVAE(latent_channels=4, width=4).eval()
    return {"vae": vae, "transformer": transformer, "tokenizer": load_tokenizer(), "text_encoder": encoder}


@pytest.fixture
def pipe(parts: dict) -> MobiVidPipeline:
    made = MobiVidPipeline(**parts, scheduler=make_scheduler("euler"))
    made.set_progress_bar_config(disable=True)
    return made


def _seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def _turned(image: Image.Image) -> Image.Image:
    """The picture as a phone stores it: turned, with the note that says so."""
    stored, buffer = image.transpose(Image.Transpose.ROTATE_90), io.BytesIO()
    exif = stored.getexif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    stored.save(buffer, "png", exif=exif)
    return Image.open(buffer)


def _pictures() -> dict[str, tuple[object, object]]:
    """Kind of picture -> (it, the same as a (3, H, W) float tensor)."""
    array = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    colour = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    grey = array[..., 0]
    rgba = np.dstack([array, np.full((32, 64), 255, np.uint8)])
    clear = np.dstack([array, np.zeros((32, 64), np.uint8)])
    grey_colour = (torch.from_numpy(grey).float() / 255).expand(3, -1, -1)
    return {
        "bytes array": (array, colour),
        "float array": (array / 255, colour),
        "bytes tensor": (torch.from_numpy(array).permute(2, 0, 1), colour),
        "whole numbers": (array.astype(np.int64), colour),
        "batch": (array[None], colour),
        "not contiguous": (array[::-1][::-1], colour),
        "gradient": (colour.clone().requires_grad_(), colour),
        "PIL": (Image.fromarray(array), colour),
        "EXIF-turned": (_turned(Image.fromarray(array)), colour),
        "RGBA": (Image.fromarray(rgba), colour),
        "RGBA array": (rgba, colour),
        "transparent": (Image.fromarray(clear), torch.ones_like(colour)),
        "grey PIL": (Image.fromarray(grey), grey_colour),
        "grey array": (grey, grey_colour),
        "grey array of one channel": (grey[..., None], grey_colour),
        "grey tensor": (torch.from_numpy(grey), grey_colour),
        "16-bit PIL": (Image.fromarray(grey.astype(np.uint16) * 257), grey_colour),
        "16-bit array": (array.astype(np.uint16) * 257, colour),
    }


@pytest.mark.parametrize("kind", _pictures())
def test_every_kind_of_picture_is_the_same_picture(parts: dict, kind: str) -> None:
    given, expected = _pictures()[kind]
    made = encode_image(parts["vae"], given, 2, 2, 32, 64, parts["vae"].device)
    wanted = parts["vae"].encode_latents(2 * expected[None, :, None] - 1)
    torch.testing.assert_close(made, wanted.expand(2, -1, -1, -1, -1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.full((32, 64, 3), np.nan), "nan"),
        (np.full((32, 64, 3), 255.0), "divide bytes by 255"),
        (np.full((32, 64, 3), -1.0), r"\(x \+ 1\) / 2"),
        (np.full((32, 64, 3), 300), "0, 255"),
        (np.zeros((3, 32, 64), np.uint8), "ndarray of shape"),
        (torch.zeros(32, 64, 3), "Tensor of shape"),
        (np.zeros((0, 64, 3), np.uint8), "shape"),
        (np.array([["a"]]), "image must be"),
        ("cat.png", "'cat.png'"),
        ([], "got 0"),
        ([np.zeros((32, 64, 3), np.uint8)] * 3, "one image or 2"),
    ],
)
def test_what_is_no_picture_is_refused(pipe: MobiVidPipeline, wrong: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        pipe(["a", "b"], image=wrong, **SMALL)


def test_guidance_of_zero_and_of_one_are_none(pipe: MobiVidPipeline) -> None:
    none, zero = (pipe("a star", generator=_seed(), guidance_scale=g, **SMALL).frames for g in (1, 0))
    assert torch.equal(none, zero) and not pipe.guidance_scale.needed
    for wrong in (-1, float("nan"), "three"):
        with pytest.raises(ParameterError, match="guidance"):
            pipe("a star", guidance_scale=wrong, **SMALL)


def test_no_negative_prompt_is_an_empty_one(pipe: MobiVidPipeline) -> None:
    none, empty = (pipe("a star", generator=_seed(), negative_prompt=n, **SMALL).frames for n in (None, ""))
    assert torch.equal(none, empty)


def test_clips_of_one_prompt_lie_beside_each_other(pipe: MobiVidPipeline) -> None:
    noise = torch.randn(4, 4, 2, 1, 2, generator=_seed())
    image = torch.rand(2, 3, 32, 64, generator=_seed())
    both = pipe(["a star", "a fish"], latents=noise, num_videos_per_prompt=2, image=image, **SMALL).frames
    for i, prompt in enumerate(["a star", "a star", "a fish", "a fish"]):
        alone = pipe(prompt, latents=noise[i : i + 1], image=image[i // 2], **SMALL).frames
        torch.testing.assert_close(both[i : i + 1], alone)  # other batch shapes: round-off
    generators = [_seed(i) for i in range(4)]
    assert len(pipe(["a", "b"], generator=generators, num_videos_per_prompt=2, **SMALL).frames) == 4


@pytest.mark.parametrize("negative", [None, "a fish"])
@pytest.mark.parametrize("masks", [True, False])
def test_states_stand_for_their_prompts(pipe: MobiVidPipeline, negative: str | None, masks: bool) -> None:
    said = pipe(["a red star", "a"], generator=_seed(), negative_prompt=negative, **SMALL).frames
    states, mask = pipe.encode_prompt(["a red star", "a"])
    given = {"prompt_embeds": states, "prompt_attention_mask": mask if masks else None}
    if negative:
        states, mask = pipe.encode_prompt(negative)
        given |= {"negative_prompt_embeds": states, "negative_prompt_attention_mask": mask.long() if masks else None}
    assert torch.equal(pipe(**given, generator=_seed(), **SMALL).frames, said)
    short = {k: v[:, :9] for k, v in given.items() if v is not None and not k.startswith("negative")}
    cut = pipe(**{**given, **short}, generator=_seed(), **SMALL).frames  # padding decides nothing
    torch.testing.assert_close(cut, said)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "give prompt or prompt_embeds"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 3, 12)}, "not both"),
        ({"prompt": "a", "prompt_attention_mask": torch.ones(1, 3)}, "belongs to prompt_embeds"),
        ({"prompt": "a", "negative_prompt": "b", "negative_prompt_embeds": torch.zeros(1, 3, 12)}, "not both"),
        ({"prompt_embeds": torch.zeros(1, 3, 13)}, r"\(prompts, tokens, 12\)"),
        ({"prompt_embeds": [1]}, "tensor of states"),
        ({"prompt_embeds": torch.zeros(1, 3, 12), "prompt_attention_mask": torch.ones(1, 4)}, r"\(1, 3\)"),
        ({"prompt": ["a"] * 3, "negative_prompt_embeds": torch.zeros(2, 3, 12)}, "one or 3"),
        ({"prompt": "a", "negative_prompt": 3}, "negative_prompt: expected"),
        ({"prompt": ["a", "b"], "generator": [_seed()]}, "1 generators for 2 clips"),
        ({"prompt": "a", "generator": [_seed()] * 2}, "2 generators for 1 clips"),
        ({"prompt": "a", "generator": 7}, "manual_seed"),
        ({"prompt": "a", "generator": [7]}, "manual_seed"),
        ({"prompt": "a", "num_videos_per_prompt": 0}, "num_videos_per_prompt"),
        ({"prompt": "a", "num_inference_steps": 2.0}, "num_inference_steps"),
        ({"prompt": "a", "height": "32"}, "height"),
        ({"prompt": "a", "num_frames": True}, "num_frames"),
        ({"prompt": "a", "latents": np.zeros(3)}, "latents must be"),
        ({"prompt": "a", "callback_on_step_end_tensor_inputs": ["noise_pred"]}, "latents, prompt_embeds"),
        ({"prompt": "a", "callback_on_step_end": lambda *_: torch.zeros(1)}, "must return a dict"),
    ],
)
def test_calls_that_do_not_fit_are_refused(pipe: MobiVidPipeline, wrong: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        pipe(**{**SMALL, **wrong})


def test_a_callback_gets_what_it_asks_for_and_what_it_returns_counts(pipe: MobiVidPipeline) -> None:
    asked, seen = ["latents", "prompt_embeds", "negative_prompt_embeds"], []

    def other_prompt(pipeline: MobiVidPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        seen.append(list(tensors))
        return {"prompt_embeds": torch.zeros_like(tensors["prompt_embeds"])}

    plain = pipe("a star", generator=_seed(), **SMALL).frames
    call = {"callback_on_step_end": other_prompt, "callback_on_step_end_tensor_inputs": asked}
    assert not torch.equal(pipe("a star", generator=_seed(), **call, **SMALL).frames, plain)
    assert seen == [asked] * 2
    same = pipe("a star", generator=_seed(), callback_on_step_end=lambda *_: None, **SMALL).frames
    assert torch.equal(same, plain)


def test_a_callback_may_change_the_guidance_or_stop(pipe: MobiVidPipeline) -> None:
    done = []

    def off_and_stop(pipeline: MobiVidPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        done.append(step)
        pipeline._guidance_scale = 0.0
        pipeline._interrupt = step == 1
        return tensors

    asked = {**SMALL, "num_inference_steps": 5}
    pipe("a star", generator=_seed(), callback_on_step_end=off_and_stop, **asked)
    assert done == [0, 1] and pipe.guidance_scale == 0 and pipe.num_timesteps == 5


def test_a_student_stays_one_in_every_pipeline_around_it(parts: dict, pipe: MobiVidPipeline) -> None:
    own = {**parts, "transformer": copy.deepcopy(parts["transformer"]), "scheduler": make_scheduler()}
    student = MobiVidPipeline(**own, distilled={**CARD, "solver": "euler"})
    again = MobiVidPipeline(**student.components)
    assert again.config.distilled == CARD and set(again.components) == set(own)
    again.set_progress_bar_config(disable=True)
    again("a", **{k: v for k, v in SMALL.items() if k != "num_inference_steps"})
    assert again.num_timesteps == 4 and not again.guidance_scale.needed
    teacher = MobiVidPipeline(**{**student.components, "transformer": pipe.transformer})
    assert teacher.config.distilled is None


def test_types_of_numbers_and_variants(pipe: MobiVidPipeline, tmp_path) -> None:
    pipe.save_pretrained(tmp_path / "plain")
    for name in ("dtype", "torch_dtype"):
        half = MobiVidPipeline.from_pretrained(tmp_path / "plain", **{name: torch.bfloat16})
        assert {m.dtype for m in (half.vae, half.transformer, half.text_encoder)} == {torch.bfloat16}
    half.set_progress_bar_config(disable=True)
    assert half("a", generator=_seed(), **{**SMALL, "output_type": "np"}).frames.dtype == np.float32
    mixed = MobiVidPipeline.from_pretrained(tmp_path / "plain", dtype={"transformer": torch.float16})
    assert mixed.transformer.dtype == torch.float16 and mixed.vae.dtype == torch.float32
    with pytest.raises(ParameterError, match="two names"):
        MobiVidPipeline.from_pretrained(tmp_path / "plain", dtype=torch.float16, torch_dtype=torch.float32)
    for wrong in ("float16", torch.int8, {"unet": torch.float16}):
        with pytest.raises(ParameterError, match="dtype"):
            MobiVidPipeline.from_pretrained(tmp_path / "plain", dtype=wrong)

    half.save_pretrained(tmp_path / "half", variant="fp16")
    weights = tmp_path / "half" / "transformer" / "diffusion_pytorch_model.fp16.safetensors"
    assert next(iter(load_file(weights).values())).dtype == torch.bfloat16
    back = MobiVidPipeline.from_pretrained(tmp_path / "half", variant="fp16", dtype=torch.bfloat16)
    torch.testing.assert_close(back.transformer.state_dict(), half.transformer.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="fp16.safetensors: pass the name inside as variant"):
        MobiVidPipeline.from_pretrained(tmp_path / "half")
    with pytest.raises(CheckpointError, match="no diffusion_pytorch_model.fp16.safetensors"):
        MobiVidPipeline.from_pretrained(tmp_path / "plain", variant="fp16")


def test_solvers_that_cannot_integrate_a_flow_are_refused(parts: dict, pipe: MobiVidPipeline) -> None:
    euler = diffusers.FlowMatchEulerDiscreteScheduler
    wrong = [
        diffusers.DDIMScheduler(),
        diffusers.FlowMatchHeunDiscreteScheduler(),
        euler(use_dynamic_shifting=True),
        euler(stochastic_sampling=True),
        diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config),
        None,
    ]
    for scheduler in wrong:
        with pytest.raises(ParameterError, match="make_scheduler"):
            MobiVidPipeline(**parts, scheduler=scheduler)
    pipe.scheduler = wrong[0]
    with pytest.raises(ParameterError, match="DDIMScheduler cannot sample"):
        pipe("a", **SMALL)
    for kind in ("euler", "unipc", "dpm++"):
        check_scheduler(make_scheduler(kind, shift=3.0))
    check_scheduler(diffusers.DPMSolverMultistepScheduler.from_config(make_scheduler("unipc").config))


def test_offloading_moves_the_vae_before_it_is_used(pipe: MobiVidPipeline) -> None:
    """accelerate's own hook, with "meta" in a GPU's place: weights left behind would be an error."""
    vae = copy.deepcopy(pipe.vae)
    cpu_offload_with_hook(vae, torch.device("meta"))
    assert vae.decode_latents(torch.zeros(1, 4, 2, 1, 2, device="meta")).device.type == "meta"
    vae = copy.deepcopy(pipe.vae)
    cpu_offload_with_hook(vae, torch.device("meta"))
    assert vae.encode_latents(torch.zeros(1, 3, 9, 32, 64, device="meta")).device.type == "meta"

    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module: torch.nn.Module, *args: object, **kwargs: object) -> tuple:
            Counting.calls += 1
            return args, kwargs

    pipe.vae = add_hook_to_module(copy.deepcopy(pipe.vae), Counting())
    pipe("a", image=torch.rand(3, 32, 64), **SMALL)
    encoding, Counting.calls = Counting.calls, 0
    pipe("a", **{**SMALL, "output_type": "pt"})
    assert encoding and Counting.calls
