"""The device model: a roofline's two sides, the fit's recovery of a known efficiency, inverses, and the anchors."""

import math

import numpy as np
import pandas as pd
import pytest

from mobivid_core.deploy.counts import LayerCount
from mobivid_core.deploy.devices import (
    Device,
    Stage,
    calibration_rows,
    clip_seconds,
    clip_stages,
    find_device,
    fit_efficiency,
    fps_interval,
    leave_one_out,
    load_devices,
    required_efficiency,
    stage_seconds,
)  # fmt: skip
from mobivid_core.errors import ParameterError
from mobivid_core.models.config import MOBILE

CHIP = Device("d", "c", "Neural Engine", tflops=10.0, gb_s=50.0, ram_gb=None, evidence="assumed", source="")
BLANK = Device("d", "c", "NPU", tflops=None, gb_s=50.0, ram_gb=None, evidence="assumed", source="")
GRID = (7, 12, 16)


def test_roofline_takes_the_slower_side() -> None:
    assert stage_seconds(Stage("compute", 4.0, 1.0, 3), CHIP, 0.5) == pytest.approx(3 * 0.8)
    assert stage_seconds(Stage("memory", 0.01, 100.0), CHIP, 0.5) == pytest.approx(2.0)
    assert stage_seconds(Stage("unknown peak", 4.0, 100.0), BLANK, 0.5) == pytest.approx(2.0)
    with pytest.raises(ParameterError, match="efficiency"):
        stage_seconds(Stage("x", 1, 1), CHIP, 0.0)


def test_fit_recovers_a_known_efficiency() -> None:
    logs = np.random.default_rng(0).normal(math.log(0.3), 0.1, 4000)
    fit = fit_efficiency(pd.DataFrame({"efficiency": np.exp(logs)}))
    assert fit.typical == pytest.approx(0.3, rel=0.01)  # standard error 0.1 / sqrt(4000) = 0.16 %
    low, high = fit.interval(0.8)
    assert math.log(high / low) / 2 == pytest.approx(1.2816 * 0.1, rel=0.03)
    assert np.quantile(fit.draws(20_000), [0.1, 0.9]) == pytest.approx([low, high], rel=0.02)
    with pytest.raises(ParameterError, match="too few"):
        fit_efficiency(pd.DataFrame({"efficiency": [0.3, 0.2]}))


def test_required_efficiency_inverts_the_prediction() -> None:
    stages = [Stage("a", 2.4, 2.0, 4), Stage("slow memory", 0.001, 20.0)]
    needed = required_efficiency(stages, CHIP, frames=49, fps=15)
    assert 49 / clip_seconds(stages, CHIP, needed) == pytest.approx(15, rel=1e-6)
    assert required_efficiency([Stage("m", 0.1, 1000.0)], CHIP, 49, 15) == math.inf
    assert required_efficiency([Stage("c", 1000.0, 0.0)], CHIP, 49, 15) > 1


def test_interval_orders_and_widens_with_an_unknown_decoder() -> None:
    stages, fit = clip_stages(MOBILE, GRID), fit_efficiency()
    chip = find_device("A18 Pro")
    middle, low, high = fps_interval(stages, chip, fit, 49)
    assert low < middle < high
    with_decoder = fps_interval(stages, chip, fit, 49, decoder_tflop=(1.0, 8.0))
    assert with_decoder[0] < middle and with_decoder[1] < low
    with pytest.raises(ParameterError, match="no float16 peak"):
        fps_interval(stages, BLANK, fit, 49)


def test_guidance_and_steps_multiply_the_transformer_only() -> None:
    decoder = LayerCount(flops=10**12, traffic_bytes=10**9)
    few, many = (clip_stages(MOBILE, GRID, steps=s, guidance=g, decoder=decoder) for s, g in ((4, False), (40, True)))
    work = {s.name: s.repeats * s.tflop for s in few}
    assert all(s.repeats * s.tflop == pytest.approx(work[s.name] * (1 if s.name == "decoder" else 20)) for s in many)


def test_blank_cells_stay_blank_and_errors_name_the_known() -> None:
    assert any(d.tflops is None for d in load_devices())
    assert all(d.evidence for d in load_devices())
    with pytest.raises(ParameterError, match="A18 Pro"):
        find_device("A99")


def test_leave_one_device_out_meets_the_bar() -> None:
    rows = leave_one_out("chip")
    assert len(rows) == len(calibration_rows())
    assert rows["error"].median() <= 0.20
    assert rows["efficiency"].between(0.15, 0.5).all()


def test_reconstructed_speed_needs_the_published_arithmetic() -> None:
    # 4 x 2.413 TFLOP in 49 / 15 s on 17.5 TFLOP/s: 16.9 % with a free decoder.
    stages = clip_stages(MOBILE, GRID)
    assert required_efficiency(stages, find_device("A18 Pro"), 49, 15) == pytest.approx(0.169, abs=5e-4)
