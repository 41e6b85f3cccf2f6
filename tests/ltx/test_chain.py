"""The whole chain of subcommands on a tiny pipeline that diffusers made: in, cut, trained, out into its pipelines."""

import json
import tarfile

import diffusers
import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from safetensors.torch import load_file, save_file

from mobivid_core.__main__ import main
from mobivid_core.ltx.checkpoint import load_transformer
from mobivid_core.ltx.shards import LatentShards
from mobivid_core.models.ltx import MobiVidLTXTransformer

from .conftest import CHANNELS, TEXT

CLIP = ["--frames", "9", "--height", "64", "--width", "64", "--text-tokens", "6"]


def run(*words, status=0):
    assert main([str(word) for word in words]) == status


@pytest.fixture(scope="module")
def chain(pipeline_folder, videos, tmp_path_factory):
    """Every step once; the folder of all results."""
    place = tmp_path_factory.mktemp("chain")
    data = place / "data"
    run("encode", "--pipeline", pipeline_folder, "--videos", videos, "--out", data, *CLIP, "--per-shard", 2)
    model, given = ["--model", pipeline_folder], ["--data", data]
    run("score", *model, *given, "--out", place / "scores", "--samples", 3, "--probes", 2, "--dtype", "float32")
    run("plan", *model, "--scores", place / "scores", "--params", 0.6, "--out", place / "plan.json", "--multiple", 8)
    run("prune", *model, "--plan", place / "plan.json", "--out", place / "pruned", *CLIP)
    student = [*model, *given, "--student"]
    run("refit", *student, place / "pruned", "--out", place / "refitted", "--samples", 3)
    run("recover", *student, place / "refitted", "--out", place / "recovered", "--steps", 4, "--batch", 2)
    few = ["--steps", 4, "--batch", 2, "--captions", 2, "--teacher-steps", 4]
    run("distill", *student, place / "recovered", "--out", place / "distilled", *few)
    return place


def test_every_step_leaves_a_student_with_its_card(chain):
    wanted = {"pruned": 0, "refitted": 1, "recovered": 2, "distilled": 3}
    weights = {}
    for name, steps in wanted.items():
        model = load_transformer(chain / name)
        assert model.sizes.rope_span == 4
        assert len(json.loads((chain / name / "history.json").read_text())["steps"]) == steps
        assert "| block of the source |" in (chain / name / "README.md").read_text()
        weights[name] = model.blocks[0].attn1.to_out.weight.float()
    names = list(wanted)
    assert all(not torch.equal(weights[a], weights[b]) for a, b in zip(names, names[1:], strict=False))


def test_shards_are_webdataset_s_and_hold_what_the_pipeline_computes(chain, pipeline_folder, videos):
    data = LatentShards(chain / "data")
    assert data.facts.shape == (CHANNELS, 2, 2, 2) and data.facts.text_dim == TEXT and data.facts.frame_rate == 24
    shards = sorted((chain / "data").glob("*.tar"))
    assert len(shards) == 2  # two videos, then one
    read = list(webdataset.WebDataset([str(s) for s in shards], shardshuffle=False, empty_check=False))
    assert len(read) == len(data) >= 3 and {"safetensors", "json"} <= set(read[0])
    pipe = diffusers.LTXPipeline.from_pretrained(pipeline_folder)
    caption = json.loads(read[0]["json"])["caption"]
    states, mask, *_ = pipe.encode_prompt(caption, do_classifier_free_guidance=False, max_sequence_length=6)
    _, text, own = data[0]
    torch.testing.assert_close(text, states[0].detach(), atol=0.05, rtol=0.05)  # encoded in bfloat16
    assert torch.equal(own, mask[0].bool())


def test_finished_work_is_not_done_again(chain, pipeline_folder, videos, capsys):
    first = (chain / "data" / "shard-00000.tar").stat().st_mtime_ns
    (chain / "data" / "shard-00001.tar").unlink()
    run("encode", "--pipeline", pipeline_folder, "--videos", videos, "--out", chain / "data", *CLIP, "--per-shard", 2)
    assert (chain / "data" / "shard-00000.tar").stat().st_mtime_ns == first
    assert (chain / "data" / "shard-00001.tar").exists()
    capsys.readouterr()
    again = ["--out", chain / "scores", "--samples", 3, "--probes", 2, "--dtype", "float32"]
    run("score", "--model", pipeline_folder, "--data", chain / "data", *again)
    printed = capsys.readouterr().out
    assert "PFLOP" in printed and "sample-0000" not in printed


@pytest.mark.parametrize("unit, budget", [("--flops", 0.8), ("--bytes", 0.7), ("--seconds", 0.9)])
def test_budgets_in_every_unit(chain, pipeline_folder, tmp_path, unit, budget, capsys):
    plan = ["--scores", chain / "scores", unit, budget, "--out", tmp_path / "plan.json", "--multiple", 8]
    run("plan", "--model", pipeline_folder, *plan)
    assert "->" in capsys.readouterr().out


def test_inspect_prints_layers_floors_and_devices(pipeline_folder, capsys):
    run("inspect", "--model", pipeline_folder, *CLIP)
    printed = capsys.readouterr().out
    total = sum(p.numel() for p in load_transformer(pipeline_folder).parameters())
    assert f"{total:,} parameters" in printed
    assert all(word in printed for word in ("self_attention", "blocks + heads + ffn", "A100 SXM", "iPhone 16 Pro Max"))


def frames_of(pipe, **other):
    latents = torch.randn(1, 8, CHANNELS, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np", "max_sequence_length": 6}
    size = {"frames": 9, "height": 64, "width": 64}
    return pipe(
        prompt="a red ball", num_frames=size["frames"], height=64, width=64, latents=latents, **settings, **other
    ).frames[0]


def test_unpruned_ours_gives_the_same_frames_as_diffusers_in_its_pipeline(pipeline_folder):
    theirs = diffusers.LTXPipeline.from_pretrained(pipeline_folder)
    ours = MobiVidLTXTransformer.of(load_transformer(pipeline_folder))
    mixed = diffusers.LTXPipeline.from_pretrained(pipeline_folder, transformer=ours)
    np.testing.assert_allclose(frames_of(mixed), frames_of(theirs), atol=1e-4)


def test_a_student_lives_in_diffusers_pipelines(chain, pipeline_folder, tmp_path):
    student = MobiVidLTXTransformer.from_pretrained(chain / "pruned", dtype=torch.float32)
    pipe = diffusers.LTXPipeline.from_pretrained(pipeline_folder, transformer=student)
    frames = frames_of(pipe)
    assert frames.shape == (9, 64, 64, 3) and np.isfinite(frames).all()
    pipe.save_pretrained(tmp_path)
    again = diffusers.LTXPipeline.from_pretrained(tmp_path)
    assert isinstance(again.transformer, MobiVidLTXTransformer)
    np.testing.assert_array_equal(frames_of(again), frames)
    # The same clip by our own model and diffusers' scheduler: the adapter adds nothing.
    ours, scheduler = load_transformer(chain / "pruned", torch.float32, (8 / 25, 32.0, 32.0)), pipe.scheduler
    states, mask, null, null_mask = pipe.encode_prompt("a red ball", None, True, max_sequence_length=6)
    x = torch.randn(1, 8, CHANNELS, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 3, 3))
    with torch.no_grad():
        for t in scheduler.timesteps:
            cube = x.transpose(1, 2).unflatten(2, (2, 2, 2))
            both = ours(
                cube.repeat(2, 1, 1, 1, 1), t.expand(2), torch.cat([null, states]), torch.cat([null_mask, mask])
            ).sample
            without, given = both.flatten(2).transpose(1, 2).chunk(2)
            x = scheduler.step(without + 3.0 * (given - without), t, x, return_dict=False)[0]
    pipe.set_progress_bar_config(disable=True)
    got = pipe(
        prompt="a red ball", num_frames=9, height=64, width=64, num_inference_steps=3, guidance_scale=3.0,
        latents=torch.randn(1, 8, CHANNELS, generator=torch.Generator().manual_seed(0)), output_type="latent",
        max_sequence_length=6,
    ).frames  # fmt: skip
    torch.testing.assert_close(got, x, atol=1e-4, rtol=1e-4)


def test_image_to_video_takes_it_too(chain, pipeline_folder):
    student = MobiVidLTXTransformer.from_pretrained(chain / "pruned", dtype=torch.float32)
    frames = {}
    for name, model in (("student", student), ("theirs", None), ("ours", load_transformer(pipeline_folder))):
        other = {} if model is None else {"transformer": model}
        if name == "ours":
            other = {"transformer": MobiVidLTXTransformer.of(model)}
        pipe = diffusers.LTXImageToVideoPipeline.from_pretrained(pipeline_folder, **other)
        pipe.set_progress_bar_config(disable=True)
        frames[name] = pipe(
            image=Image.new("RGB", (64, 64), (200, 30, 30)), prompt="a red ball", num_frames=9, height=64, width=64,
            num_inference_steps=2, output_type="np", max_sequence_length=6,
            generator=torch.Generator().manual_seed(0),
        ).frames[0]  # fmt: skip
    assert np.isfinite(frames["student"]).all()
    np.testing.assert_allclose(frames["ours"], frames["theirs"], atol=1e-4)


def test_own_latents_are_packed(tmp_path):
    folder = tmp_path / "latents"
    folder.mkdir()
    for i in range(3):
        sample = {"latents": torch.randn(CHANNELS, 2, 2, 2), "text": torch.randn(5, TEXT), "mask": torch.ones(5).bool()}
        save_file(sample, folder / f"{i}.safetensors")
    save_file({"text": torch.zeros(1, 5, TEXT), "mask": torch.ones(1, 5).bool()}, folder / "null.safetensors")
    run("encode", "--latents", folder, "--out", tmp_path / "data", "--fps", 12)
    data = LatentShards(tmp_path / "data")
    kept = load_file(folder / "1.safetensors")
    torch.testing.assert_close(data[1][0], kept["latents"], atol=2e-3, rtol=1e-3)
    assert data.facts.rope_scale == (8 / 12, 32.0, 32.0)


def test_what_is_wrong_is_said_in_one_line(chain, pipeline_folder, tmp_path, capsys):
    def complaint(*words):
        run(*words, status=2)
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("error: ")
        return error

    def copy(name, change_config=None, change_state=None):
        import shutil

        folder = tmp_path / name
        shutil.copytree(pipeline_folder / "transformer", folder)
        config = json.loads((folder / "config.json").read_text()) | (change_config or {})
        (folder / "config.json").write_text(json.dumps(config))
        if change_state:
            weights = folder / "diffusion_pytorch_model.safetensors"
            state = load_file(weights)
            change_state(state)
            save_file(state, weights)
        return folder

    assert "holds a WanTransformer3DModel; supported are LTXVideoTransformer3DModel" in complaint(
        "inspect", "--model", copy("wan", {"_class_name": "WanTransformer3DModel"}), *CLIP
    )
    assert "patch_size = 2 (supported: 1)" in complaint("inspect", "--model", copy("patch", {"patch_size": 2}), *CLIP)
    plan = ["--plan", chain / "plan.json", "--out", tmp_path / "x", *CLIP]
    missing = copy("missing", change_state=lambda s: s.pop("transformer_blocks.1.attn1.to_q.bias"))
    assert "lacks 1 tensors: transformer_blocks.1.attn1.to_q.bias" in complaint("prune", "--model", missing, *plan)
    narrow = copy("narrow", change_state=lambda s: s.update({"proj_in.weight": torch.zeros(3, 3)}))
    assert "proj_in.weight" in complaint("prune", "--model", narrow, *plan)
    torn = copy("torn")
    weights = torn / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "torn or no safetensors" in complaint("inspect", "--model", torn, *CLIP)
    assert "is not a folder" in complaint("inspect", "--model", tmp_path / "nothing", *CLIP)

    other = copy("other", {"in_channels": 8, "out_channels": 8})
    scores = ["--out", tmp_path / "s", "--data", chain / "data"]
    assert "6 latent channels and text of width 12; the model takes 8 and 12" in complaint(
        "score", "--model", other, *scores
    )
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (chain / "data").iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[:700] if path.suffix == ".tar" else content)
    assert "is no whole tar file" in complaint("score", "--model", pipeline_folder, "--data", broken, *scores[:2])
    with tarfile.open(chain / "data" / "shard-00000.tar") as tar:
        offset = next(m.offset_data for m in tar if m.name.endswith(".safetensors"))
    for path in (chain / "data").iterdir():
        content = bytearray(path.read_bytes())
        content[offset : offset + 8] = b"\xff" * 8 if path.suffix == ".tar" else content[offset : offset + 8]
        (broken / path.name).write_bytes(content)
    assert "is damaged" in complaint("score", "--model", pipeline_folder, "--data", broken, *scores[:2])
