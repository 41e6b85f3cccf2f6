"""Bits by layer: palettes, budgets, the package against the plan, and the gate on numerics."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("coremltools")
from mobivid_core.coreml import graphs, mixed_bits, verify  # noqa: E402
from mobivid_core.coreml.convert import convert  # noqa: E402
from mobivid_core.coreml.mil import execute, relative_error  # noqa: E402
from mobivid_core.coreml.numerics import unsafe_forms  # noqa: E402
from mobivid_core.coreml.packages import load_program  # noqa: E402
from mobivid_core.coreml.weight_bits import compress  # noqa: E402
from mobivid_core.errors import ParameterError  # noqa: E402


class _Net(torch.nn.Module):
    """A large layer whose output hardly counts, a small one that scales it up, and a softmax over the result."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.large, self.small, self.scale = torch.nn.Linear(64, 256), torch.nn.Linear(256, 32), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(self.large(x))
        return torch.softmax(self.small(y) * self.scale, -1) + y[..., :32]


def _converted(folder: Path, scale: float = 1.0) -> tuple[graphs.Graph, verify.Verification]:
    graph = graphs.Graph("net", _Net(scale), {"x": torch.randn(1, 5, 64)})
    return graph, verify.convert_and_verify(graph, folder)


def test_palettes_have_so_many_values_and_err_less_with_more() -> None:
    weight = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32)
    errors = [np.square(mixed_bits.palette(weight, b) - weight).mean() for b in (2, 4, 6, 8)]
    assert [len(np.unique(mixed_bits.palette(weight, b))) for b in (2, 4)] == [4, 16]
    # Lloyd-Max quantisers of a normal: .1175 at 2 bits, .0095 at 4.
    assert errors[:2] == pytest.approx([0.1175, 0.0095], rel=0.12) and errors == sorted(errors, reverse=True)
    assert len(np.unique(mixed_bits.palette(np.repeat([1.0, 2.0], 2000), 4))) == 2


def test_bits_go_where_they_remove_most_damage_within_the_budget() -> None:
    damage = pd.DataFrame({"layer": ["calm", "tender"], "values": [400_000, 400_000],
                           2: [1e-3, 1.0], 3: [5e-4, 0.25], 4: [2e-4, 0.06], 6: [1e-5, 4e-3],
                           8: [1e-6, 2e-4]})  # fmt: skip
    budget = 2.01 * mixed_bits.palette_bytes(400_000, 4)  # 6-bit palettes themselves cost a few bytes more
    bits = mixed_bits.allocate(damage, budget)
    assert bits["tender"] > 4 > bits["calm"]
    assert sum(mixed_bits.palette_bytes(400_000, b) for b in bits.values()) <= budget
    assert mixed_bits.allocate(damage, 1e9) == {"calm": 8, "tender": 8}
    with pytest.raises(ParameterError, match="budget"):
        mixed_bits.allocate(damage, 10)


def test_a_mixed_package_is_what_was_planned_and_no_larger_than_uniform(tmp_path: Path) -> None:
    graph, verified = _converted(tmp_path)
    package = verified.package
    bits, damage = mixed_bits.mixed_for(package, [graph.inputs])
    assert set(damage["layer"]) == set(mixed_bits.weights(load_program(package.path))) == set(bits)
    made = mixed_bits.compress_mixed(package, bits, tmp_path / "mixed.mlpackage")
    uniform = compress(package, 4, tmp_path / "four.mlpackage")
    assert made.megabytes <= uniform.megabytes * 1.02  # headers of 64 bytes
    constants = [o for o in load_program(made.path).operations if o.kind == "const"]
    stored = {o.outputs[0].name.removesuffix("_palettized"): o.value for o in constants}
    assert all(len(np.unique(stored[n])) <= 2**b for n, b in bits.items())
    # coremltools' palettes are k-means too: the saved program is as good as the plan's.
    expected = execute(load_program(package.path), graph.inputs)["output"]
    planned = execute(mixed_bits.with_palettes(load_program(package.path), bits), graph.inputs)["output"]
    found = execute(load_program(made.path), graph.inputs)["output"]
    assert relative_error(found, expected) == pytest.approx(relative_error(planned, expected), rel=0.3)


def test_damage_scaled_from_four_bits_is_near_what_is_measured(tmp_path: Path) -> None:
    graph, verified = _converted(tmp_path)
    program = load_program(verified.package.path)
    expected = execute(program, graph.inputs)["output"]
    for row in mixed_bits.layer_damage(program, [graph.inputs]).to_dict("records"):
        for bits in (3, 6):
            changed = execute(mixed_bits.with_palettes(program, {row["layer"]: bits}), graph.inputs)["output"]
            # One weight's errors are one draw: a factor of 2.5 in squares is four decibels.
            assert 0.4 < row[bits] / relative_error(changed, expected) ** 2 < 2.5, (row["layer"], bits)


def test_the_gate_names_what_float16_would_lose(tmp_path: Path) -> None:
    graph, verified = _converted(tmp_path)
    assert unsafe_forms(verified.package.path, graph.inputs).empty
    loud = _Net(3e4).eval()  # converted without a check: its own check would find the output's infinities
    package = convert(loud, graph.inputs, ("output",), tmp_path / "loud.mlpackage")
    named = unsafe_forms(package.path, {"x": 100 * graph.inputs["x"]})
    assert "scores before a softmax" in set(named["form"]) and (named["largest"] > named["limit"]).all()


def test_the_gate_names_eight_bits_a_block(tmp_path: Path) -> None:
    import coremltools as ct
    import coremltools.optimize.coreml as optimize

    graph, verified = _converted(tmp_path)
    for granularity, forms in (("per_block", 2), ("per_channel", 0)):
        config = optimize.OpLinearQuantizerConfig(dtype="int8", granularity=granularity, block_size=32)
        model = ct.models.MLModel(str(verified.package.path), skip_model_load=True)
        made = optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))
        made.save(str(tmp_path / f"{granularity}.mlpackage"))
        named = unsafe_forms(tmp_path / f"{granularity}.mlpackage", graph.inputs)
        assert len(named) == forms, granularity
