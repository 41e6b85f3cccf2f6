"""The app's loop on packages: whole and in parts alike, and the table of what smaller weights cost."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("coremltools")
from mobivid_core.coreml import app, bundle, graphs, verify
from mobivid_core.coreml.convert import compress  # noqa: E402
from mobivid_core.coreml.packages import load_program, package_hash  # noqa: E402
from mobivid_core.errors import ExportError, ParameterError  # noqa: E402
from mobivid_core.models.config import DiTConfig  # noqa: E402
from mobivid_core.models.dit import MobiVidTransformer3DModel  # noqa: E402

TINY = DiTConfig(64, 8, (2, 1), (1, 2), (96, 64), in_channels=8, text_dim=12)
GRID = (2, 1, 2)


def _model() -> MobiVidTransformer3DModel:
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(TINY).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[graphs.Graph], list[verify.Verification]]:
    whole = graphs.dit_graph(_model(), GRID, 6).module
    half = 0.7 * 2 * sum(p.numel() for p in whole.parameters())
    chunks = graphs.dit_chunks(_model(), GRID, 6, limit_bytes=half)
    folder = tmp_path_factory.mktemp("parts")
    return chunks, [verify.convert_and_verify(graph, folder) for graph in chunks]


def test_parts_are_below_the_limit_and_pass_the_gates(parts: tuple) -> None:
    chunks, verified = parts
    assert [g.name for g in chunks] == ["dit_part1of2", "dit_part2of2"]
    assert all(v.passed for v in verified)
    with pytest.raises(ParameterError, match="alone is larger"):
        graphs.dit_chunks(_model(), GRID, 6, limit_bytes=1000)


def test_a_chain_of_parts_samples_what_torch_samples(parts: tuple) -> None:
    chunks, verified = parts
    model = _model()
    tables = bundle.timestep_tables(model, [1.0, 0.5])
    noise, text, mask = torch.randn(1, 8, *GRID), torch.randn(1, 6, 12), torch.arange(6)[None] < 4
    programs = [load_program(v.package.path) for v in verified]
    ours = app.sample(app.package_step(programs, "fp32"), noise, text, mask, tables)
    with torch.no_grad():
        theirs = app.sample(graphs.dit_graph(verify.round_weights(model), GRID, 6).module, noise, text, mask, tables)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)  # two steps of float32, tables not rounded here


def test_fewer_bits_are_smaller_worse_and_deterministic(parts: tuple, tmp_path: Path) -> None:
    chunks, verified = parts
    eight, four = (verify.compress_and_verify(chunks[0], verified[0], n, tmp_path) for n in (8, 4))
    assert four.package.megabytes < eight.package.megabytes < verified[0].package.megabytes
    assert 2e-6 < eight.fp32_error < four.fp32_error < 0.5
    assert eight.passed and eight.bits == 8
    again = compress(verified[0].package, 8, tmp_path / "again.mlpackage")
    assert package_hash(again.path) == eight.package.digest != verified[0].package.digest
    with pytest.raises(ParameterError, match="5 bits"):
        compress(verified[0].package, 5, tmp_path / "x.mlpackage")


class _Reader:
    """Reads the sign of a clip's mean as its class."""

    def predict(self, clips: torch.Tensor) -> torch.Tensor:
        return (clips.mean((1, 2, 3, 4)) > 0).long()[:, None].expand(-1, 4)


def test_weight_cost_compares_with_torch_and_with_the_caption() -> None:
    reference = torch.stack([torch.full((3, 1, 2, 2), v) for v in (0.5, -0.5)])
    clips = {16: reference + 0.02, 4: reference + torch.tensor([0.2, 1.0])[:, None, None, None, None]}
    truth = torch.ones(2, 4, dtype=torch.long)
    table = app.weight_cost(clips, reference, {16: 4.0, 4: 1.0}, _Reader(), truth).set_index("bits")
    # PSNR of a constant offset d in a range of 2: 20 log10(2 / d).
    assert table.loc[16, "worst clip (dB)"] == pytest.approx(40.0, abs=1e-4)
    assert table.loc[4, "worst clip (dB)"] == pytest.approx(20 * torch.log10(torch.tensor(2.0)).item(), abs=1e-4)
    assert table.loc[16, "read as torch's"] == 1.0 and table.loc[4, "read as torch's"] == 0.5
    assert table.loc[16, "all attributes right"] == 0.5 and table.loc[4, "all attributes right"] == 1.0
    with pytest.raises(ExportError, match="differ"):
        app.weight_cost({8: reference[:1]}, reference, {8: 1.0}, _Reader(), truth)
