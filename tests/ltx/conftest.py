"""Tiny LTX-Video checkpoints that diffusers itself initialises and saves, with random weights everywhere."""

from __future__ import annotations

import subprocess
import sys

import diffusers
import pytest
import torch

from mobivid_core.ltx.checkpoint import load_transformer
from mobivid_core.ltx.layout import ltx_sizes
from mobivid_core.ltx.plans import write_student
from mobivid_core.ltx.random_weights import write_random_data, write_random_ltx
from mobivid_core.prune.plan import PruningPlan
from mobivid_core.prune.surgery import prune

HEADS, HEAD_DIM, CHANNELS, TEXT = 4, 8, 6, 12


def randomise(model, seed=0, std=0.3):
    """diffusers starts some tensors at zero or one, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = torch.randn(parameter.shape, generator=generator) * std
            parameter.copy_(1 + value if ".norm_" in name else value)
    return model.eval()


def tiny_ltx(seed=0, blocks=3, heads=HEADS, head_dim=HEAD_DIM, **other):
    settings = {"in_channels": CHANNELS, "out_channels": CHANNELS, "caption_channels": TEXT} | other
    model = diffusers.LTXVideoTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        cross_attention_dim=heads * head_dim,
        num_layers=blocks,
        **settings,
    )
    return randomise(model, seed)


def example(grid=(2, 3, 2), batch=2, text=5, seed=1, dtype=torch.float32):
    """Latents, timestep, text and a mask that pads the second caption."""
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, CHANNELS, *grid, generator=g).to(dtype)
    mask = torch.arange(text)[None] < torch.tensor([[text], [2]])[:batch]
    states = torch.randn(batch, text, TEXT, generator=g).to(dtype)
    return latents, torch.tensor([950.0, 130.0])[:batch], states, mask


def relative(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="session")
def ltx_folder(tmp_path_factory):
    """A transformer folder as diffusers saves it."""
    folder = tmp_path_factory.mktemp("ltx") / "transformer"
    tiny_ltx().save_pretrained(folder)
    return folder


def tiny_pipeline(folder):
    """A whole LTX pipeline of a few hundred kilobytes, with LTX-Video's compression of 8 x 32 x 32."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "ball", "moving", "left", "right"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=128
    )
    torch.manual_seed(0)
    encoder = T5EncoderModel(T5Config(vocab_size=10, d_model=TEXT, d_kv=4, d_ff=16, num_layers=1, num_heads=2))
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        patch_size=4,
    ).eval()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe = diffusers.LTXPipeline(scheduler, vae, encoder.eval(), fast, tiny_ltx())
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """A pipeline folder as diffusers saves it."""
    return tiny_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Three captioned videos of a square that moves."""
    import numpy as np

    from mobivid_core.data.video_io import write_video

    folder = tmp_path_factory.mktemp("videos")
    lines = ["file,caption"]
    for i, caption in enumerate(("a red ball moving right", "a blue ball moving left", "a ball moving")):
        frames = np.full((20, 64, 64, 3), 40 * i, np.uint8)
        for t in range(20):
            frames[t, 20:40, 2 * t : 2 * t + 16, i] = 220
        write_video(folder / f"{i}.mp4", frames)
        lines.append(f"{i}.mp4,{caption}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A random teacher, a student cut from it, and data."""
    folder = tmp_path_factory.mktemp("training")
    sizes = ltx_sizes(3, 4, 8, in_channels=6, text_dim=12)
    write_random_ltx(folder / "ltx", sizes, torch.float32)
    write_random_data(folder / "data", sizes, (2, 2, 2), samples=6, text_tokens=5)
    plan = PruningPlan(sizes, (0, 2), ((0, 2, 3),) * 2, ((1, 2, 3),) * 2, (tuple(range(96)),) * 2)
    student = prune(load_transformer(folder / "ltx"), plan)
    write_student(student, plan, folder / "student", "random weights", (), (2, 2, 2), 5)
    return folder


def launch(arguments, processes):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*start, "-m", "mobivid_core", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def close(one, other):
    assert one.keys() == other.keys()
    for name in one:  # AdamW divides by the root of tiny second moments, which magnifies another order of sums
        torch.testing.assert_close(one[name], other[name], atol=2e-5, rtol=1e-3)
