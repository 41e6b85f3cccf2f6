"""The static page's sliders in a real browser: each moves the text, none makes an error, nothing is fetched."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mobivid_core.models.config import MOBILE, DiTConfig
from mobivid_core.models.counts import dit_params, latent_grid
from mobivid_core.phone.devices import load_devices
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.predictions import example_rate
from mobivid_core.phone.roofline import clip_stages
from mobivid_core.show import live

pytestmark = pytest.mark.browser
DEVICES = [d for d in load_devices() if d.tflops and d.gb_s]
SIZES = [(512, 384), (768, 512)]
#: Set the controls as a hand would, then read what the page says.
SET = """(values) => {
  const root = document.querySelector('.mobivid-live');
  for (const [name, value] of Object.entries(values)) root.querySelector(`[name=${name}]`).value = value;
  root.querySelector('input').dispatchEvent(new Event('input', {bubbles: true}));
  return ['.speed', '.plan'].map((name) => root.querySelector(name).textContent);
}"""


def _show(page) -> None:  # noqa: ANN001
    data = live.numbers(MOBILE, DEVICES, fit_efficiency(), sizes=SIZES, frames=49, decoder_tflop=1.6)
    page.set_content(f"<html><body>{live.page(data)}</body></html>")
    page.wait_for_function("() => document.querySelector('.speed').textContent.includes('frames/s')")


def test_twenty_random_settings_of_the_page_are_pythons(page) -> None:  # noqa: ANN001
    _show(page)
    rng = random.Random(0)
    for _ in range(20):
        s = {"device": rng.randrange(len(DEVICES)), "size": rng.randrange(2), "bandwidth": rng.randint(-4, 2),
             "efficiency": rng.randint(5, 100) / 100, "frames": 8 * rng.randint(2, 15) + 1, "steps": rng.randint(1, 40),
             "decoder": rng.randint(0, 20) / 2, "blocks": rng.randint(1, 40), "heads": rng.randint(1, 32),
             "ffn": 256 * rng.randint(1, 32)}  # fmt: skip
        speed, plan = page.evaluate(SET, s)
        cfg = DiTConfig.uniform(blocks=s["blocks"], heads=s["heads"], ffn=s["ffn"], hidden=2048, head_dim=64)
        (width, height), device = SIZES[s["size"]], DEVICES[s["device"]]
        stages = clip_stages(cfg, latent_grid(s["frames"], height, width), steps=s["steps"])
        decoder = s["decoder"] * width * height * s["frames"] / (512 * 384 * 49)
        device = replace(device, gb_s=device.gb_s * 2 ** s["bandwidth"])
        rate = example_rate(stages, decoder, device, s["efficiency"], s["frames"])
        # Text is rounded to a tenth of a frame and to a million parameters.
        assert float(speed.split()[0]) == pytest.approx(rate, rel=0.01, abs=0.051)
        assert float(plan.split()[0]) == pytest.approx(dit_params(cfg)["total"] / 1e6, rel=0.01, abs=0.51)
    assert not page.console.errors


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_its_window_and_names_every_control(page, width: int) -> None:  # noqa: ANN001
    page.set_viewport_size({"width": width, "height": 800})
    _show(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('input, select')].every((c) => c.labels.length === 1)")
    boxes = [element.bounding_box() for element in page.query_selector_all("label, input, select, output")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)


def test_every_slider_moves_the_text_without_an_error(page) -> None:  # noqa: ANN001
    _show(page)
    for control in page.query_selector_all("input, select"):
        before = page.inner_text("body")
        control.focus()
        name = control.get_attribute("name")
        if name == "bandwidth":  # more of it changes nothing where the arithmetic decides
            page.keyboard.press("Home")
        else:
            page.keyboard.press("ArrowDown" if name in ("device", "size") else "ArrowRight")
        page.wait_for_timeout(50)
        assert page.inner_text("body") != before, name
    assert not page.console.errors
