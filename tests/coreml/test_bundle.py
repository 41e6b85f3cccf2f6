"""The app's loop, the bundle's files, the export command's errors, and the tables of predictions."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mobivid_core import artifacts
from mobivid_core.coreml import app, bundle, export, graphs
from mobivid_core.coreml.packages import Package
from mobivid_core.coreml.verify import Verification
from mobivid_core.errors import CheckpointError, ExportError
from mobivid_core.flow.condition import Condition
from mobivid_core.flow.sampling import sample_latents
from mobivid_core.models.config import MOBILE, SERVER, SMOKE_MOBILE
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.phone import predictions
from mobivid_core.phone.devices import find_device
from mobivid_core.phone.efficiency import Efficiency, fit_efficiency
from mobivid_core.phone.roofline import Stage, clip_stages

GRID = (7, 12, 16)


def _model() -> MobiVidTransformer3DModel:
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(SMOKE_MOBILE).eval()
    torch.nn.init.normal_(model.proj_out.weight, std=0.1)
    return model


def test_app_loop_equals_the_sampler() -> None:
    model = _model()
    text, mask = torch.randn(1, 6, 384), torch.arange(6)[None] < 4
    noise = torch.randn(1, 16, 2, 2, 2)
    expected = sample_latents(model, Condition(text, mask), noise, 4)
    tables = bundle.timestep_tables(model, [1.0, 0.75, 0.5, 0.25])
    with torch.no_grad():
        ours = app.sample(graphs.dit_graph(model, (2, 2, 2), 6).module, noise, text, mask, tables)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)  # float32, four steps


def test_generator_prefers_the_student_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path))
    monkeypatch.setattr(artifacts, "checkpoints_dir", lambda: tmp_path / "none")
    with pytest.raises(CheckpointError, match="teacher"):
        bundle.load_generator("smoke")
    with artifacts.publish("teacher", "smoke") as folder:
        artifacts.save_model(_model(), folder)
    teacher = bundle.load_generator("smoke")
    assert not teacher.distilled and teacher.sigmas == [1.0, 0.75, 0.5, 0.25]
    with artifacts.publish("student", "smoke") as folder:
        artifacts.save_model(_model(), folder)
        (folder / "distilled.json").write_text(json.dumps({"sigmas": [1.0, 0.9, 0.5, 0.1, 0.0]}))
    student = bundle.load_generator("smoke")
    assert student.distilled and student.sigmas == [1.0, 0.9, 0.5, 0.1]


def test_bundle_files(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    package = Package(tmp_path / "dit.mlpackage", 10, 1.0, {"add": 2}, "ab" * 32, 0.1)
    tables = bundle.timestep_tables(_model(), [1.0, 0.5])
    path = bundle.write_bundle(
        tmp_path,
        [Verification(package, 1e-7, 1e-4, 0, 4)],
        tables,
        source="a test",
        runs={"dit.mlpackage": 4},
        frames=17,
    )
    entry = json.loads(path.read_text())["packages"]["dit.mlpackage"]
    assert entry["sha256"] == "ab" * 32 and entry["gates_passed"]
    assert torch.equal(load_file(tmp_path / bundle.TABLES)["modulation"], tables["modulation"])


def test_export_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path))
    monkeypatch.setattr(artifacts, "checkpoints_dir", lambda: tmp_path / "none")
    assert export.main(["--config", "mini", "--out", str(tmp_path / "out"), "--profile", "smoke"]) == 2
    assert "artefact" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        export.main(["--config", "mini", "--out", str(tmp_path / "out"), "--profile", "huge"])
    assert "unknown profile" in capsys.readouterr().err


def test_full_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    with pytest.raises(ExportError, match="GB of disk"):
        export.check_resources("mobile", tmp_path / "new")


def test_ladder_multiplies_to_the_whole() -> None:
    ladder = predictions.cost_ladder(SERVER, MOBILE, GRID, 77, (40, 4))
    assert np.prod(ladder["cheaper than the row above"].dropna()) == pytest.approx(ladder["cheaper in all"].iloc[-1])
    assert ladder["cheaper in all"].iloc[2] == 20


def test_predictions_keep_evidence_and_blanks() -> None:
    stages, fit = clip_stages(MOBILE, GRID), fit_efficiency()
    table = predictions.prediction_table(
        stages, fit, 49, decoder_tflop=(1.0, 2.0), weights_gb=1.92, gpu_efficiency=0.16
    )
    assert table["device evidence"].notna().all() and table["at most (bandwidth)"].notna().all()
    android = table[table["engine"] == "Hexagon NPU"]
    assumed, blank = android.iloc[0], android.iloc[1]
    assert assumed["device evidence"] == "assumed" and assumed["frames/s"] > 0
    assert len(android) == 2 and math.isnan(blank["frames/s"]), "an unknown peak stays unknown"
    assert table.loc[(table["chip"] == "A18 Pro") & (table["engine"] == "GPU"), "frames/s"].isna().all()
    known = table.dropna(subset=["frames/s"])
    assert (known["low"] < known["frames/s"]).all() and (known["frames/s"] < known["at most (bandwidth)"]).all()


CERTAIN = Efficiency(math.log(0.25), 0.0, 9, 3, 7)


def test_every_prediction_has_the_decoder_in_it() -> None:
    """At 25 % of 17.5 TFLOP/s, 8 TFLOP of passes and 2 of the decoder take 10 / 4.375 s."""
    stages = [Stage("transformer", 2.0, 0.01, 4)]
    given = {"decoder_tflop": (2.0, 2.0), "gpu_efficiency": 0.25}
    table = predictions.prediction_table(stages, CERTAIN, 49, weights_gb=1.92, **given).set_index("chip")
    assert table.loc["A18 Pro", "frames/s"].max() == pytest.approx(49 * 4.375 / 10)
    assert table.loc["A100", "frames/s"] == pytest.approx(49 * 0.25 * 312 / 10)
    rows = [("mobile", "derived", 1e9, 4)]
    one = predictions.table_one(
        rows, {"mobile": stages}, frames=49, published={}, efficiency=CERTAIN, gpu=find_device("A100", "GPU"),
        phone=find_device("A18 Pro"), **given,
    )  # fmt: skip
    assert one["iPhone predicted"].item() == pytest.approx(49 * 4.375 / 10)


def test_stage_seconds_are_given_at_both_ends() -> None:
    fit, phone = fit_efficiency(), find_device("A18 Pro")
    table = predictions.stage_table([Stage("transformer", 2.0, 0.0, 4)], [phone], fit)["A18 Pro (s)"]
    low, high = fit.interval()
    for name, share in (("in all", fit.typical), ("in all, fastest", high), ("in all, slowest", low)):
        assert table[name] == pytest.approx(8 / (share * 17.5))


def test_sweep_is_monotone_and_meets_the_widget() -> None:
    stages, phone = clip_stages(MOBILE, GRID), find_device("A18 Pro")
    sweep = predictions.decoder_sweep(stages, [phone], 49, 15.0, np.array([0.0, 2.0, 8.0]))
    needed = sweep["A18 Pro Neural Engine"]
    assert needed.is_monotonic_increasing
    assert predictions.example_rate(stages, 2.0, phone, needed[1], 49) == pytest.approx(15.0, rel=1e-6)


def test_table_one_keeps_blanks_and_falls_with_the_work() -> None:
    phone, gpu, fit = find_device("A18 Pro"), find_device("A100", "GPU"), fit_efficiency()
    work = {"much": [Stage("transformer", 4.0, 1.0, 80)], "little": [Stage("transformer", 2.0, 1.0, 4)]}
    rows = [("much", "assumed", 2e9, 80), ("little", "derived", 1e9, 4)]
    table = predictions.table_one(
        rows, work, frames=49, published={"much": {"A100 frames/s": 6.4}}, decoder_tflop=(1.0, 2.0), efficiency=fit,
        gpu=gpu, gpu_efficiency=0.16, phone=phone,
    ).set_index("model")  # fmt: skip
    assert table.loc["little", "TFLOP a clip"] == pytest.approx(8.0) and math.isnan(
        table.loc["little", "A100 published"]
    )
    assert table.loc["much", "A100 predicted"] == pytest.approx(49 / (320 / (0.16 * 312)))
    assert (table["low"] < table["iPhone predicted"]).all() and table["iPhone predicted"].is_monotonic_increasing


def test_surface_is_the_widgets_number() -> None:
    phone = find_device("A18 Pro")
    grids = {"paper": (GRID, 49), "long": ((16, 12, 16), 121)}
    surface = predictions.speed_surface(MOBILE, phone, 0.3, grids=grids, steps=(4, 40), decoder_tflop_per_token=1e-3)
    slider = predictions.example_rate(clip_stages(MOBILE, GRID), 1.344, phone, 0.3, 49)
    assert surface.loc["paper", "4 steps"] == pytest.approx(slider)
    assert (surface["40 steps"] < surface["4 steps"]).all()


def test_packages_are_called_as_often_as_a_clip_needs() -> None:
    names = ("mobile_block", "mobile_dit_part1of2", "dit_8bit", "decoder", "text_encoder")
    assert [export.runs_a_clip(name, blocks=20, steps=4) for name in names] == [80, 4, 4, 1, 1]
