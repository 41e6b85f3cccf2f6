"""The static page's sliders in a real browser: each moves the text, none makes an error, nothing is fetched."""

from __future__ import annotations

import pytest

from mobivid_core.models.config import MOBILE
from mobivid_core.phone.devices import load_devices
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.show import live

pytestmark = pytest.mark.browser


def test_every_slider_moves_the_text_without_an_error(page) -> None:  # noqa: ANN001
    devices = [d for d in load_devices() if d.tflops and d.gb_s]
    sizes = [(512, 384), (768, 512)]
    data = live.numbers(MOBILE, devices, fit_efficiency(), sizes=sizes, frames=49, decoder_tflop=1.6)
    page.set_content(f"<html><body>{live.page(data)}</body></html>")
    page.wait_for_function("() => document.querySelector('.speed').textContent.includes('frames/s')")
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
