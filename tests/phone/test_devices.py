"""The device model: a roofline's two sides, the fit's recovery of a known efficiency, inverses, and the anchors."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mobivid_core.errors import ParameterError
from mobivid_core.models.config import MOBILE, DiTConfig
from mobivid_core.models.counts import LayerCount, dit_flops
from mobivid_core.phone.devices import Device, find_device, load_devices, with_assumed_peak
from mobivid_core.phone.efficiency import Efficiency, calibration_rows, fit_efficiency, fps_interval, leave_one_out
from mobivid_core.phone.roofline import (
    Stage,
    clip_seconds,
    clip_stages,
    required_efficiency,
    seconds_by_kind,
    stage_seconds,
)

CHIP = Device(
    "d", "c", "Neural Engine", tflops=10.0, int8_tops=None, gb_s=50.0, ram_gb=None, evidence="assumed", source=""
)
BLANK = Device("d", "c", "NPU", tflops=None, int8_tops=40.0, gb_s=50.0, ram_gb=None, evidence="assumed", source="")
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


def test_prediction_intervals_follow_student_and_widen_for_one_more_chip() -> None:
    logs = np.log([0.2, 0.25, 0.35, 0.3])
    fit = fit_efficiency(pd.DataFrame({"efficiency": np.exp(logs)}))
    for level in (0.8, 0.95):
        low, high = stats.t.interval(level, 3, logs.mean(), logs.std(ddof=1) * math.sqrt(1 + 1 / 4))
        assert fit.interval(level) == pytest.approx((math.exp(low), min(1.0, math.exp(high))))
    assert np.quantile(fit.draws(200_000), [0.1, 0.9]) == pytest.approx(fit.interval(0.8), rel=0.02)


def test_what_is_left_out_is_not_fitted_on() -> None:
    rows = calibration_rows()
    for by in ("chip", "workload"):
        found = leave_one_out(by)
        for value, held in found.groupby(by):
            others = np.log(rows.loc[rows[by] != value, "efficiency"])
            expected = math.exp(others.mean()) * held["fp16_tflops"] / held["tflop_per_iteration"]
            assert held["predicted_per_s"].tolist() == pytest.approx(expected.tolist())
            t = stats.t.interval(0.8, len(others) - 1, others.mean(), others.std() * math.sqrt(1 + 1 / len(others)))
            assert held["covers"].tolist() == np.log(held["efficiency"]).between(*t).tolist()
    whole = fit_efficiency().typical
    assert not np.allclose(found["predicted_per_s"], whole * found["fp16_tflops"] / found["tflop_per_iteration"])


def test_an_unknown_decoder_is_drawn_over_its_whole_range() -> None:
    chip = find_device("A18 Pro")
    certain = Efficiency(math.log(0.25), 0.0, 9)
    stages = clip_stages(MOBILE, GRID)
    ends = [49 / (clip_seconds(stages, chip, 0.25) + tflop / (0.25 * chip.tflops)) for tflop in (8.0, 4.5, 1.0)]
    middle, low, high = fps_interval(stages, chip, certain, 49, level=0.98, decoder_tflop=(1.0, 8.0))
    assert (low, middle, high) == pytest.approx(tuple(ends), rel=0.03)


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


def test_products_of_a_clip_add_up_to_the_counted_pass() -> None:
    uneven = DiTConfig(48, 8, (3, 0, 2), (1, 2, 0), (96, 0, 64), in_channels=16, text_dim=24)
    for cfg in (MOBILE, uneven):
        flops = dit_flops(cfg, GRID, 77)
        stages = clip_stages(cfg, GRID, text_tokens=77, steps=3, guidance=True)
        total = sum(s.repeats * s.tflop for s in stages)
        assert total * 1e12 == pytest.approx(6 * (flops["total"] - flops["timestep"]), rel=1e-12)


def test_smaller_weights_only_lower_the_traffic() -> None:
    full, small = (clip_stages(MOBILE, GRID, weight_bits=bits) for bits in (16, 4))
    assert [s.tflop for s in full] == [s.tflop for s in small]
    assert sum(s.gigabytes * s.repeats for s in small) < sum(s.gigabytes * s.repeats for s in full)
    # Only the traffic of weights shrinks: a quarter of 2 bytes a weight, in each of four passes.
    saved = sum((a.gigabytes - b.gigabytes) * a.repeats for a, b in zip(full, small, strict=True))
    assert saved == pytest.approx(4 * 1.5 * 0.935, rel=0.01)


def test_kinds_add_up_to_the_clip() -> None:
    stages, phone = clip_stages(MOBILE, GRID), find_device("A18 Pro")
    kinds = seconds_by_kind(stages, phone, 0.3)
    assert list(kinds) == ["patch", "caption", "self-attention", "cross-attention", "FFN"]
    assert sum(kinds.values()) == pytest.approx(clip_seconds(stages, phone, 0.3))


def test_assumed_peak_is_said_and_never_replaces_a_known_one() -> None:
    guess = with_assumed_peak(BLANK)
    assert guess.tflops == 20.0 and guess.evidence == "assumed"
    assert with_assumed_peak(CHIP) == CHIP
