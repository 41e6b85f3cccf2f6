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
from mobivid_core.phone.efficiency import (
    Efficiency,
    calibration_rows,
    fit_efficiency,
    fps_cases,
    fps_interval,
    leave_one_out,
    left_out_errors,
)
from mobivid_core.phone.roofline import (
    Stage,
    clip_seconds,
    clip_stages,
    required_efficiency,
    seconds_by_kind,
    stage_seconds,
)

CHIP = Device("d", "c", "Neural Engine", tflops=10.0, int8_tops=None, gb_s=50.0, ram_gb=None, evidence="assumed")
BLANK = Device("d", "c", "NPU", tflops=None, int8_tops=40.0, gb_s=50.0, ram_gb=None, evidence="assumed")
GRID = (7, 12, 16)


def test_roofline_takes_the_slower_side() -> None:
    assert stage_seconds(Stage("compute", 4.0, 1.0, 3), CHIP, 0.5) == pytest.approx(3 * 0.8)
    assert stage_seconds(Stage("memory", 0.01, 100.0), CHIP, 0.5) == pytest.approx(2.0)
    assert stage_seconds(Stage("unknown peak", 4.0, 100.0), BLANK, 0.5) == pytest.approx(2.0)
    with pytest.raises(ParameterError, match="efficiency"):
        stage_seconds(Stage("x", 1, 1), CHIP, 0.0)


def _drawn(rng: np.random.Generator, spread: tuple[float, float, float], layout: pd.DataFrame) -> pd.DataFrame:
    """Efficiencies with a median of .25 and effects of workload, chip and row (standard deviations of the logs)."""
    effects = [layout[name].map({v: rng.normal(0, sd) for v in layout[name].unique()})
               for name, sd in zip(("workload", "chip"), spread, strict=False)]  # fmt: skip
    logs = math.log(0.25) + effects[0] + effects[1] + rng.normal(0, spread[2], len(layout))
    return layout.assign(efficiency=np.exp(logs))


def test_fit_recovers_the_spreads_of_workloads_and_chips() -> None:
    layout = pd.DataFrame([(f"c{i}", f"w{j}") for i in range(60) for j in range(200)], columns=["chip", "workload"])
    fit = fit_efficiency(_drawn(np.random.default_rng(0), (0.3, 0.2, 0.0), layout))
    # Standard errors: .3 / sqrt(200) and .2 / sqrt(60) of the mean, about 5 % and 9 % of the two spreads.
    assert math.log(fit.typical / 0.25) == pytest.approx(0, abs=0.1)
    assert fit.log_sd == pytest.approx(math.hypot(0.3, 0.2), rel=0.12)
    assert (fit.workloads, fit.chips) == (200, 60)


def test_fit_is_the_formula_by_hand() -> None:
    rows = pd.DataFrame({"chip": ["a", "b", "a", "b", "c"], "workload": ["u", "u", "v", "v", "w"],
                         "efficiency": np.exp([-1.0, -1.4, -0.6, -1.2, -2.0])})  # fmt: skip
    between, within = np.var([-1.2, -0.9, -2.0], ddof=1) * 4 / 3, 0.25**2 + 0.25**2
    fit = fit_efficiency(rows)
    assert fit.log_mean == pytest.approx(-4.1 / 3) and fit.log_sd == pytest.approx(math.sqrt(between + within))
    freedom = (between + within) ** 2 / (between**2 / 2 + within**2 / 1)
    assert fit.freedom == pytest.approx(freedom)
    for level in (0.8, 0.95):
        low, high = stats.t.interval(level, freedom, fit.log_mean, fit.log_sd)
        assert fit.interval(level) == pytest.approx((math.exp(low), min(1.0, math.exp(high))))
    assert np.quantile(fit.draws(200_000), [0.1, 0.9]) == pytest.approx(fit.interval(), rel=0.02)
    for few in (rows[rows["workload"] == "u"], rows[rows["workload"] == "w"]):
        with pytest.raises(ParameterError, match="two of each"):
            fit_efficiency(few)


@pytest.mark.parametrize("spread", [(0.4, 0.15, 0.05), (0.2, 0.2, 0.1)])
def test_intervals_hold_one_more_workload_on_one_more_chip(spread: tuple[float, float, float]) -> None:
    rng, layout, held = np.random.default_rng(0), calibration_rows()[["chip", "workload"]], 0
    for _ in range(600):
        low, high = fit_efficiency(_drawn(rng, spread, layout)).interval()
        held += low <= 0.25 * math.exp(sum(rng.normal(0, sd) for sd in spread)) <= high
    # Binomial error of 600 draws is .016; Satterthwaite's approximation may be off by .03 more.
    assert held / 600 == pytest.approx(0.8, abs=0.065)


def test_what_is_left_out_is_not_fitted_on() -> None:
    rows = calibration_rows()
    for by in ("chip", "workload"):
        found = leave_one_out(by)
        assert len(found) == len(rows)
        for value, held in found.groupby(by):
            fit = fit_efficiency(rows[rows[by] != value])
            expected = fit.typical * held["fp16_tflops"] / held["tflop_per_iteration"]
            assert held["predicted_per_s"].tolist() == pytest.approx(expected.tolist())
            assert held["covers"].tolist() == held["efficiency"].between(*fit.interval()).tolist()
    whole = fit_efficiency().typical
    assert not np.allclose(found["predicted_per_s"], whole * found["fp16_tflops"] / found["tflop_per_iteration"])


def test_each_chip_and_workload_counts_once_among_the_errors() -> None:
    table = left_out_errors().set_index("left out")
    for by in ("chip", "workload"):
        errors = leave_one_out(by).groupby(by)["error"].median()
        assert table.loc[f"each {by} in turn", "median error"] == pytest.approx(errors.median())
        assert table.loc[f"each {by} in turn", "n"] == len(errors)
        assert table.loc[f"each {by} in turn", "largest error"] == errors.max()


def test_a_disputed_peak_is_a_case_of_its_own_and_widens_the_interval() -> None:
    stages, phone = clip_stages(MOBILE, GRID), find_device("A18 Pro")
    cases, interval = fps_cases(stages, phone, 49, decoder_tflop=(1.0, 8.0))
    nominal, other, same_chip = (row for row in cases.itertuples())
    assert cases["TFLOP/s"].iloc[:2].tolist() == [phone.tflops, phone.other_tflops]
    # The chip's own anchor is one of three workloads, and reaches less of a higher peak: a third of that in the mean.
    falls = math.log(nominal._3 / other._3)
    assert falls == pytest.approx(math.log(phone.other_tflops / phone.tflops) / 3)
    assert interval.value == nominal._4 and interval.low == min(nominal.low, other.low)
    assert interval.high == max(nominal.high, other.high) > nominal.high
    # The chip's own anchor needs no peak: its speed in FLOPs, over the clip's.
    tflop = sum(s.repeats * s.tflop for s in stages) + 4.5
    assert same_chip._4 == pytest.approx(49 / (tflop / (5.6 * 0.5)), rel=1e-3)
    assert math.isnan(same_chip.low)


def test_the_transformer_anchor_costs_what_its_sizes_give() -> None:
    # Width 1152, depth 28, 16 heads of 72, one key and value head, FFN ratio 3, 4,096 tokens, 300 text tokens.
    n, d, head, text = 4096, 1152, 72, 300
    own = 4 * n * d * d + 4 * n * d * head + 4 * n * n * d
    cross = 4 * n * d * d + 4 * text * d * head + 4 * n * text * d
    tflop = 28 * (own + cross + 4 * n * d * 3 * d) / 1e12
    row = calibration_rows().set_index("chip").loc["A18 Pro"]
    assert row["tflop_per_iteration"] == pytest.approx(tflop, rel=0.05)
    assert 28 * 4 * n * n * d / 1e12 / tflop == pytest.approx(0.4, abs=0.02)


def test_an_unknown_decoder_is_drawn_over_its_whole_range() -> None:
    chip = find_device("A18 Pro")
    certain = Efficiency(math.log(0.25), 0.0, 9, 3, 7)
    stages = clip_stages(MOBILE, GRID)
    # the 80 % interval of what is drawn evenly between 1 and 8
    ends = [49 / (clip_seconds(stages, chip, 0.25) + tflop / (0.25 * chip.tflops)) for tflop in (7.3, 4.5, 1.7)]
    middle, low, high = fps_interval(stages, chip, certain, 49, decoder_tflop=(1.0, 8.0))
    assert (low, middle, high) == pytest.approx(tuple(ends), rel=0.03)


def test_the_prediction_is_the_median_of_its_draws() -> None:
    """A decoder of 1 to 9 TFLOP alone, at 10 TFLOP/s: the median is at 5; the mean, ln 9 / 8, is a third higher."""
    certain = Efficiency(0.0, 0.0, 9, 3, 7)
    found = fps_interval([], CHIP, certain, 1, decoder_tflop=(1.0, 9.0))
    assert found == pytest.approx((10 / 5, 10 / 8.2, 10 / 1.8), rel=0.03)  # 4,000 draws


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
    elite = find_device("Snapdragon 8 Elite", "Hexagon NPU")
    assert elite.int8_tops is None and with_assumed_peak(elite).tflops is None
    assert find_device("A18 Pro").evidence == "assumed"  # the weakest of its parts: the peak
    with pytest.raises(ParameterError, match="A18 Pro"):
        find_device("A99")


def test_every_anchor_implies_a_plausible_share_of_the_peak() -> None:
    assert calibration_rows()["efficiency"].between(0.15, 0.5).all()


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


def test_kinds_add_up_to_the_clip() -> None:
    stages, phone = clip_stages(MOBILE, GRID), find_device("A18 Pro")
    kinds = seconds_by_kind(stages, phone, 0.3)
    assert list(kinds) == ["patch", "caption", "self-attention", "cross-attention", "FFN"]
    assert sum(kinds.values()) == pytest.approx(clip_seconds(stages, phone, 0.3))


def test_assumed_peak_is_said_and_never_replaces_a_known_one() -> None:
    guess = with_assumed_peak(BLANK)
    assert guess.tflops == 20.0 and guess.evidence == "assumed"
    assert with_assumed_peak(CHIP) == CHIP
