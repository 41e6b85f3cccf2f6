"""`mobivid predict`: sizes from configurations, limits, and what it advises."""

import json
from pathlib import Path

import pytest

from mobivid_core.models.config import MOBILE, SERVER, DiTConfig
from mobivid_core.models.counts import dit_counts
from mobivid_core.phone import predict
from mobivid_core.phone.devices import find_device
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.fit import Model, advice, buffer_table, package_table, peak_memory, read_model
from mobivid_core.phone.references import ltx_transformer_counts
from mobivid_core.phone.roofline import clip_seconds, clip_stages

GRID = (7, 12, 16)
LTX = {"_class_name": "LTXVideoTransformer3DModel", "in_channels": 128, "num_attention_heads": 32,
       "attention_head_dim": 64, "num_layers": 28, "caption_channels": 4096}  # fmt: skip


def test_an_ltx_configuration_is_counted_as_diffusers_builds_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LTX))
    model = read_model(str(tmp_path))
    assert model == read_model(str(tmp_path / "config.json")) or model.sizes.blocks == 28
    ours, theirs = dit_counts(model.sizes, GRID, 128)["total"], ltx_transformer_counts(GRID)
    # Ours modulates nothing in the timestep's FFN differently: sizes agree to the rounding of a few vectors.
    assert ours.params == pytest.approx(theirs.params, rel=1e-3) and ours.flops == pytest.approx(theirs.flops, rel=1e-3)


def test_our_checkpoints_are_read(tmp_path: Path) -> None:
    small = DiTConfig(48, 8, (3, 0), (1, 2), (96, 64), in_channels=16, text_dim=24)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "MobiVidTransformer3DModel"} | small.as_kwargs()))
    assert read_model(str(tmp_path)).sizes == small


@pytest.mark.parametrize(
    "text", ["{}", '{"_class_name": "UNet"}', '{"_class_name": "LTXVideoTransformer3DModel"}', "no"]
)
def test_what_is_no_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert predict.main(["--model", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert predict.main(["--model", "mobile", "--size", "48x512x384"]) == 2
    with pytest.raises(SystemExit):
        predict.main(["--model", "mobile", "--size", "big"])


def test_limits_decide_parts_and_advice() -> None:
    server = Model(SERVER)
    table = package_table(server, GRID).set_index(["package", "bits"])
    # 1.917e9 parameters: 3.83 GB in float16 in four packages of 1 GB, 1.44 GB at 6 bits in one.
    assert not table.loc[("transformer", 16), "one weight file"] and table.loc[("transformer", 16), "parts"] == 4
    assert table.loc[("transformer", 6), "parts"] == 1 and table.loc[("transformer", 8), "parts"] == 2
    said = advice(server, GRID, 49, (512, 384), [find_device("A14")])
    assert any("refuses; cut it into 4 packages or store 6-bit" in line for line in said)
    assert any(line.startswith("A14") and "assumed" in line for line in said)
    small = Model(DiTConfig.uniform(blocks=2, heads=2, ffn=64, hidden=64, head_dim=32))
    assert advice(small, (1, 1, 1), 1, (32, 32), [find_device("A18 Pro")]) == []


def test_buffers_above_four_gibibytes_are_named() -> None:
    grid = (16, 40, 64)  # 40,960 tokens: 20 heads' scores are 67 GB
    model = Model(MOBILE)
    table = buffer_table(model, grid, 121, (2048, 1280)).set_index("tensor")
    scores = table.loc["attention scores of one layer, if stored whole"]
    assert scores["MB"] == pytest.approx(2 * 20 * 40_960**2 / 1e6) and not scores["below 4 GiB"]
    assert any("tiles" in line for line in advice(model, grid, 121, (2048, 1280), []))
    assert peak_memory(model, GRID, 4)["all loaded"] < peak_memory(model, GRID)["all loaded"]


def test_seconds_are_the_roofline_at_the_typical_efficiency() -> None:
    model = read_model("mobile")
    row = predict.predict(model, 49, (512, 384), 4)["seconds"].set_index("chip").loc["A18 Pro"]
    stages = clip_stages(MOBILE, GRID, decoder=model.decoder(GRID), text_encoder=model.text_encoder())
    assert row["whole clip"] == pytest.approx(clip_seconds(stages, find_device("A18 Pro"), fit_efficiency().typical))
    assert row["fastest"] < row["whole clip"] < row["slowest"] and row["low"] < row["frames/s"] < row["high"]
    assert row["peak"] == "assumed"
