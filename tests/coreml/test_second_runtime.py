"""ONNX files of the app: equal to torch, smaller in int8, and refused when they are not what was exported."""

from pathlib import Path

import pytest
import torch

from mobivid_core.coreml import graphs, second_runtime
from mobivid_core.coreml.mil import relative_error
from mobivid_core.coreml.second_runtime import OnnxApp, export_onnx, smaller
from mobivid_core.errors import ExportError
from mobivid_core.models.config import DiTConfig
from mobivid_core.models.dit import MobiVidTransformer3DModel

TINY = DiTConfig(64, 8, (2, 1), (1, 2), (96, 64), in_channels=8, text_dim=12)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[graphs.Graph, Path]:
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(TINY).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    graph = graphs.dit_graph(model, (2, 1, 2), 6)
    return graph, export_onnx(graph, tmp_path_factory.mktemp("onnx"))


def _run(graph: graphs.Graph, path: Path) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {k: v.numpy() for k, v in graph.inputs.items()})[0])


def test_an_exported_step_computes_what_torch_computes(exported: tuple) -> None:
    graph, path = exported
    with torch.no_grad():
        expected = graph.module(*graph.inputs.values())
    assert relative_error(_run(graph, path), expected) < 1e-5  # float32, sums in another order
    eight = smaller(path)
    assert eight.stat().st_size < path.stat().st_size
    assert 1e-4 < relative_error(_run(graph, eight), expected) < 0.1


class _Scaled(OnnxApp):
    """An app whose clips are its table's factor times the noise."""

    def clip(self, caption: str, noise: torch.Tensor) -> torch.Tensor:
        return self.tables["factor"] * noise


def _scaled(factor: float) -> OnnxApp:
    return _Scaled(None, None, None, {"factor": torch.tensor(factor)}, 1.0)


def test_compare_reports_the_worst_clip_and_refuses_a_wrong_app() -> None:
    pairs = [("a", torch.ones(4)), ("b", torch.full((4,), 2.0))]
    apps = {name: _scaled(f) for name, f in (("float32", 1 + 5e-5), ("int8", 1.1))}
    table, speeds = second_runtime.compare(apps, lambda _, noise: noise, pairs, frames=17, repeats=3, runs=2)
    assert table["error"].tolist()[1:] == pytest.approx([5e-5, 0.1], rel=1e-2)
    assert table["frames/s"].tolist() == pytest.approx((17e3 / table["ms a clip"]).tolist())
    assert speeds["int8"].n == 2 and speeds["int8"].over == "runs"
    apps["float32"] = _scaled(1.001)
    with pytest.raises(ExportError, match="differ from torch's"):
        second_runtime.compare(apps, lambda _, noise: noise, pairs, frames=17)


def test_speeds_are_torchs_seconds_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"torch": [3.0, 4.0, 5.0], "float32": [2.0] * 3, "int8": [1.0] * 3}
    monkeypatch.setattr(second_runtime, "alternating_seconds", lambda work, repeats: seconds)
    apps = {name: _scaled(1.0) for name in ("float32", "int8")}
    table, speeds = second_runtime.compare(apps, lambda _, noise: noise, [("a", torch.ones(4))], frames=17, runs=2)
    assert speeds["float32"].value == pytest.approx(2) and speeds["int8"].value == pytest.approx(4)
    assert table["ms a clip"].tolist() == [4000, 2000, 1000]  # the median


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="text_encoder.onnx is missing"):
        OnnxApp.load(tmp_path, {}, threads=1)
