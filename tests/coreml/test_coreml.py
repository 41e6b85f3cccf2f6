"""Packages: faithful conversion, refusal of graphs that coremltools would change, deterministic hash, verification.

Each test converts something tiny; the gates are those of `verify.GATES`.
"""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("coremltools")
from mobivid_core.coreml import convert as coreml
from mobivid_core.coreml import graphs, mil, packages, verify
from mobivid_core.errors import ExportError  # noqa: E402
from mobivid_core.models.config import DiTConfig  # noqa: E402
from mobivid_core.models.dit import MobiVidTransformer3DModel  # noqa: E402

TINY = DiTConfig(24, 6, (2, 0), (1, 2), (32, 24), in_channels=8, text_dim=12)
GRID = (2, 2, 3)


def _awake(module: nn.Module) -> nn.Module:
    """Random values in every weight that starts at zero: a branch that adds nothing tests nothing."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim > 1 and parameter.numel() and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module.eval()


def _model() -> MobiVidTransformer3DModel:
    torch.manual_seed(0)
    return _awake(MobiVidTransformer3DModel.from_sizes(TINY))


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> tuple[graphs.Graph, verify.Verification]:
    graph = graphs.dit_graph(_model(), GRID, 8)
    return graph, verify.convert_and_verify(graph, tmp_path_factory.mktemp("packages"))


def test_step_equals_the_transformer() -> None:
    model, grid = _model(), GRID
    graph = graphs.dit_graph(model, grid, 8)
    inputs = graph.inputs
    keep = inputs["text_mask"] == 0
    with torch.no_grad():
        whole = model(inputs["latents"], torch.tensor([500.0]), inputs["text"], keep).sample
        step = graph.module(*inputs.values())
    # The same layers; -10,000 instead of -inf on padding gives weights of exactly zero in float32.
    torch.testing.assert_close(step, whole, rtol=0, atol=1e-6)


def test_dit_package_passes_the_gates(dit: tuple[graphs.Graph, verify.Verification]) -> None:
    _, verification = dit
    assert verification.passed
    assert verification.casts == 0
    assert verification.fp16_error > verification.fp32_error  # the modes differ, so both ran


def test_a_corrupted_package_is_caught(dit: tuple[graphs.Graph, verify.Verification], tmp_path: Path) -> None:
    graph, verification = dit
    copy = verify.corrupted_copy(verification.package.path, tmp_path / "corrupt.mlpackage")
    broken = verify.verify(graph, verification.package, packages.load_program(copy))
    assert not broken.passed
    assert packages.package_hash(copy) != verification.package.digest


def test_float16_limit_follows_torch_only_above_the_gate(dit: tuple[graphs.Graph, verify.Verification]) -> None:
    graph, good = dit
    assert good.torch_half_error is None and good.fp16_limit == verify.GATES["fp16"]
    deep = replace(good, fp16_error=3e-3, torch_half_error=2.5e-3)
    assert deep.passed and not replace(deep, torch_half_error=1.5e-3).passed
    assert not replace(deep, torch_half_error=None).passed
    expected = verify._outputs(graph.module, verify.rounded_inputs(graph).values())
    # Both round to float16 after most operations, in other places: the same size of error within a factor of three.
    assert 1 / 3 < verify._torch_half_error(graph, expected) / good.fp16_error < 3


def test_hash_is_the_same_in_another_process(dit: tuple[graphs.Graph, verify.Verification], tmp_path: Path) -> None:
    graph, verification = dit
    again = coreml.convert(graph.module, verify.rounded_inputs(graph), graph.outputs, tmp_path / "dit.mlpackage")
    assert again.digest == verification.package.digest
    code = f"from mobivid_core.coreml.packages import package_hash; print(package_hash({str(again.path)!r}))"
    env = os.environ | {"PYTHONHASHSEED": "7"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.strip() == verification.package.digest
    assert "Proxy" not in out.stderr


def test_damaged_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.mlpackage").mkdir()
    with pytest.raises(ExportError, match="no.mlpackage is no readable"):
        packages.load_program(tmp_path / "no.mlpackage")


class _TanhGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x, approximate="tanh")


class _Alpha(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, x.square(), alpha=3)


class _Harmless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(nn.functional.gelu(x, approximate="none"), x, alpha=1)


@pytest.mark.parametrize(("module", "text"), [(_TanhGelu(), "approximate='tanh'"), (_Alpha(), "alpha=3")])
def test_dropped_keywords_are_refused(module: nn.Module, text: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=text):
        coreml.convert(module, {"x": torch.randn(2, 3)}, ("y",), tmp_path / "x.mlpackage")
    assert not list(tmp_path.iterdir())


def test_default_keywords_pass() -> None:
    coreml.capture(_Harmless(), (torch.randn(2, 3),))


class _Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (x.shape[-1],), eps=1e-5)


def test_rms_norm_is_exact_for_large_small_and_zero_vectors(tmp_path: Path) -> None:
    # coremltools' own converter adds eps to the scaled mean square (3e-5 off) and makes NaN of a zero vector.
    x = torch.randn(4, 16) * torch.tensor([[1.0], [1e-2], [0.0], [500.0]])
    graph = graphs.Graph("norm", _Norm(), {"x": x}, ("y",))
    package = coreml.convert(graph.module, graph.inputs, graph.outputs, tmp_path / "norm.mlpackage")
    inputs = verify.rounded_inputs(graph)
    expected = _Norm()(inputs["x"])
    program = packages.load_program(package.path)
    out = mil.execute(program, inputs, "fp32")["y"]
    # eps is stored in float16, where 1e-5 is off by 0.14 %; it is 9 % of the second row's mean square + eps.
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(out[[0, 3]], expected[[0, 3]], rtol=1e-6, atol=0)
    torch.testing.assert_close(mil.execute(program, inputs, "fp16")["y"], expected, rtol=4e-3, atol=1e-3)


def test_clip_shaped_text_encoder_passes_the_gates(tmp_path: Path) -> None:
    graph = graphs.clip_text_graph(hidden=32, layers=1, heads=2, vocabulary=50, length=6)
    assert verify.convert_and_verify(graph, tmp_path).passed


def test_text_mask_equals_transformers_own() -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    encoder = BertModel(sizes, add_pooling_layer=False).eval()
    ids, mask = torch.randint(0, 50, (1, 8), dtype=torch.int32), torch.arange(8)[None] < 6
    graph = graphs.text_graph(encoder, ids, mask, causal=False)
    with torch.no_grad():
        ours, theirs = graph.module(*graph.inputs.values()), encoder(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours[:, :6], theirs[:, :6], rtol=0, atol=1e-6)


def test_decoder_passes_the_gates(tmp_path: Path) -> None:
    from mobivid_core.models.vae import MobiVidVAE

    torch.manual_seed(0)
    vae = _awake(MobiVidVAE(ratio=(4, 8, 8), latent_channels=4, width=8))
    vae.latents_mean.copy_(torch.randn(4))  # at 0 and 1 the converter would leave the normalisation out
    vae.latents_std.copy_(torch.rand(4) + 0.5)
    verification = verify.convert_and_verify(graphs.decoder_graph(vae, vae.latent_shape(5, 16, 16)), tmp_path)
    assert verification.passed and verification.largest_rank <= 5


@pytest.mark.parametrize("steps", [1, 3])
def test_decoder_equals_the_vae(steps: int) -> None:
    from mobivid_core.models.vae import MobiVidVAE

    torch.manual_seed(0)
    vae = _awake(MobiVidVAE(ratio=(8, 32, 32), latent_channels=6, width=20))
    vae.latents_mean.copy_(torch.randn(6))
    latents = torch.randn(1, 6, steps, 2, 3)
    with torch.no_grad():
        ours, theirs = graphs.decoder_graph(vae, (6, steps, 2, 3)).module(latents), vae.decode_latents(latents)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)  # the same layers in float32


def test_real_warnings_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    packages.import_coremltools()
    logger = logging.getLogger("coremltools")
    with caplog.at_level(logging.WARNING):
        logger.warning("Failed to load _MLModelProxy: No module named 'coremltools.libcoremlpython'")
        logger.warning("something is really wrong")
    assert [r.getMessage() for r in caplog.records] == ["something is really wrong"]


def test_full_disk_is_said(tmp_path: Path) -> None:
    class Full:
        def save(self, path: str) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(ExportError, match="disk is full"):
        packages.save_package(Full(), tmp_path / "x.mlpackage", 0, 0.0)
    assert not list(tmp_path.iterdir())


def test_constants_survive_the_round_trip(dit: tuple[graphs.Graph, verify.Verification]) -> None:
    _, verification = dit
    program = packages.load_program(verification.package.path)
    stored = [value for value in program.constants.values() if value.ndim == 2]
    assert all(np.isfinite(v).all() for v in stored)
    assert any(v.dtype == np.float16 for v in stored)


@pytest.mark.parametrize(
    ("missing", "told"),
    [("coremltools", "no package for Linux on ARM"), ("coremltools.libmilstoragepython", "without its native parts")],
)
def test_export_says_where_core_ml_tools_are_missing(monkeypatch: pytest.MonkeyPatch, missing: str, told: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExportError, match=told):
        packages.import_coremltools()
