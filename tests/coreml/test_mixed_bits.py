"""Bits by layer: palettes, budgets, the package against the plan, and the gate on numerics."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("coremltools")
from mobivid_core.coreml import app, bundle, graphs, mixed_bits, verify  # noqa: E402
from mobivid_core.coreml.convert import compress, convert  # noqa: E402
from mobivid_core.coreml.mil import Program, execute, relative_error  # noqa: E402
from mobivid_core.coreml.numerics import unsafe_forms  # noqa: E402
from mobivid_core.coreml.packages import load_program  # noqa: E402
from mobivid_core.errors import ExportError, ParameterError  # noqa: E402
from mobivid_core.models.config import DiTConfig  # noqa: E402
from mobivid_core.models.dit import MobiVidTransformer3DModel  # noqa: E402
from mobivid_core.models.vae import MobiVidVAE  # noqa: E402


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


def _with_palettes(program: Program, bits: Mapping[str, int]) -> Program:
    """A program whose named weights are replaced by their palettes."""
    changed = {name: mixed_bits.palette(program.constants[name], b) for name, b in bits.items()}
    return replace(program, constants={**program.constants, **changed})


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
    calm, tender = mixed_bits.allocate(damage, budget)
    assert tender > 4 > calm
    assert sum(mixed_bits.palette_bytes(400_000, b) for b in (calm, tender)) <= budget
    assert mixed_bits.allocate(damage, 1e9) == [8, 8]
    with pytest.raises(ParameterError, match="budget"):
        mixed_bits.allocate(damage, 10)


def test_a_mixed_package_is_what_was_planned_and_no_larger_than_uniform(tmp_path: Path) -> None:
    graph, verified = _converted(tmp_path)
    package = verified.package
    layers = mixed_bits.parameters_of(graph.module, load_program(package.path))
    damage = mixed_bits.with_bits(mixed_bits.layer_damage(layers, lambda: graph.module(graph.inputs["x"])))
    bits = dict(zip(damage["layer"], damage["bits"], strict=True))
    assert set(mixed_bits.weights(load_program(package.path))) == set(bits)
    assert mixed_bits.expected_gain_db(damage) >= 0
    made = compress(package, bits, tmp_path / "mixed.mlpackage")
    uniform = compress(package, 4, tmp_path / "four.mlpackage")
    assert made.megabytes <= uniform.megabytes * 1.02  # headers of 64 bytes
    stored = {n.removesuffix("_palettized"): v for n, v in load_program(made.path).constants.items()}
    assert all(len(np.unique(stored[n])) <= 2**b for n, b in bits.items())
    # coremltools' palettes are k-means too: the saved program is as good as the plan's.
    expected = execute(load_program(package.path), graph.inputs)["output"]
    planned = execute(_with_palettes(load_program(package.path), bits), graph.inputs)["output"]
    found = execute(load_program(made.path), graph.inputs)["output"]
    assert relative_error(found, expected) == pytest.approx(relative_error(planned, expected), rel=0.3)


def test_damage_of_a_parameter_is_that_of_the_packages_weight(tmp_path: Path) -> None:
    graph, verified = _converted(tmp_path)
    program = load_program(verified.package.path)
    before = {n: p.clone() for n, p in graph.module.state_dict().items()}
    inputs = verify.rounded_inputs(graph)
    layers = mixed_bits.parameters_of(graph.module, program)
    damage = mixed_bits.layer_damage(layers, lambda: graph.module(inputs["x"])).set_index("layer")
    expected = execute(program, inputs)["output"]
    for layer in damage.index:
        for bits in (2, 4, 6):
            changed = execute(_with_palettes(program, {layer: bits}), inputs)["output"]
            found = relative_error(changed, expected) ** 2
            # Two implementations that must agree.
            assert damage.loc[layer, bits] == pytest.approx(found * expected.square().mean().item(), rel=0.01), (
                layer,
                bits,
            )
        # Not measured: one weight's errors are one draw, so that a factor of 2.5 in squares is four decibels.
        changed = execute(_with_palettes(program, {layer: 8}), inputs)["output"]
        assert 0.4 < damage.loc[layer, 8] / (changed - expected).square().mean() < 2.5, layer
    assert all(torch.equal(p, before[n]) for n, p in graph.module.state_dict().items())


def test_a_weight_that_is_no_parameter_is_refused(tmp_path: Path) -> None:
    graph, verified = _converted(tmp_path)
    with torch.no_grad():
        graph.module.large.weight += 1
    with pytest.raises(ExportError, match="is no parameter of _Net"):
        mixed_bits.parameters_of(graph.module, load_program(verified.package.path))


def test_bits_are_the_best_that_trying_all_finds_up_to_one_step() -> None:
    rng, bits = np.random.default_rng(0), mixed_bits.BITS
    for _ in range(20):
        damage = pd.DataFrame({"layer": list("abcde"), "values": rng.integers(3_000, 300_000, 5)})
        start = 10 ** rng.uniform(-9, -2, 5)
        for b in bits:
            damage[b] = start * 4.0 ** (2 - b) * rng.uniform(0.7, 1.4, 5)
        budget = sum(mixed_bits.palette_bytes(v, 4) for v in damage["values"])
        size = np.array([[mixed_bits.palette_bytes(v, b) for b in bits] for v in damage["values"]])
        every = np.stack(np.meshgrid(*[np.arange(len(bits))] * 5), -1).reshape(-1, 5)
        harm = damage[list(bits)].to_numpy()[np.arange(5), every].sum(1)
        best = harm[size[np.arange(5), every].sum(1) <= budget].min()
        chosen = mixed_bits.allocate(damage, budget)
        found = sum(damage.loc[i, b] for i, b in enumerate(chosen))
        assert sum(size[i, bits.index(b)] for i, b in enumerate(chosen)) <= budget
        # With five layers one step is a large share of the budget.
        assert best <= found <= 6 * best and found <= damage[4].sum()


def test_an_app_gets_bits_by_layer_at_the_bytes_of_four_bits(tmp_path: Path) -> None:
    from mobivid_core.models.text import MAX_LENGTH

    torch.manual_seed(0)
    vae = MobiVidVAE(ratio=(8, 32, 32), latent_channels=6, width=20).eval()
    shape = vae.latent_shape(9, 64, 64)
    sizes = DiTConfig(64, 8, (2,), (2,), (96,), in_channels=6, text_dim=384)
    model = MobiVidTransformer3DModel.from_sizes(sizes).eval()
    for parameter in (*model.parameters(), *vae.parameters()):
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    work = [graphs.dit_graph(model, shape[1:], MAX_LENGTH), graphs.decoder_graph(vae, shape)]
    both = [(graph, verify.convert_and_verify(graph, tmp_path)) for graph in work]
    before = [{n: p.clone() for n, p in graph.module.state_dict().items()} for graph in work]
    tables = bundle.timestep_tables(model, [1.0, 0.5])
    for graph, verified in both:
        verify.compress_and_verify(graph, verified, 4, tmp_path)
    made = mixed_bits.mixed_app(both, tables, ["a red star"], tmp_path)
    assert [v.package.path.stem for v in made.made] == ["dit_mixed", "decoder_mixed"]
    assert all(v.passed for v in made.made)
    megabytes = app.sizes_mb(tmp_path, ("mixed", 4))
    assert megabytes["mixed"] <= 1.05 * megabytes[4]  # headers of 64 bytes
    assert made.expected_db > 0 and 2 <= made.average <= 4.5
    for graph, old in zip(work, before, strict=True):  # the 16-bit parts are as they were
        assert all(torch.equal(p, old[n]) for n, p in graph.module.state_dict().items())


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
