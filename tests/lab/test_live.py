"""The sliders of the static pages compute what Python computes, and run without an error."""

import json
import random
import shutil
import subprocess
from dataclasses import replace

import pytest

from mobivid_core.models.config import MOBILE, DiTConfig
from mobivid_core.models.counts import dit_counts, latent_grid
from mobivid_core.phone.devices import load_devices
from mobivid_core.phone.efficiency import fit_efficiency
from mobivid_core.phone.predictions import example_rate
from mobivid_core.phone.roofline import clip_stages
from mobivid_core.show import live

SIZES = [(512, 384), (768, 512), (1280, 704)]
DEVICES = [d for d in load_devices() if d.tflops]
DATA = live.numbers(MOBILE, DEVICES, fit_efficiency(), sizes=SIZES, frames=49, decoder_tflop=1.6)
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the script's results cannot be compared")


def _node(program: str) -> str:
    done = subprocess.run([NODE, "-e", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def _settings() -> list[dict]:
    rng = random.Random(0)
    return [
        {"device": rng.randrange(len(DEVICES)), "bandwidth": rng.uniform(-4, 2), "efficiency": rng.uniform(0.05, 1),
         "frames": 8 * rng.randint(1, 15) + 1, "size": rng.choice(SIZES), "steps": rng.randint(1, 40),
         "decoder": rng.uniform(0, 10), "blocks": rng.randint(1, 40), "heads": rng.randint(1, 32),
         "ffn": 256 * rng.randint(1, 32)}
        for _ in range(20)
    ]  # fmt: skip


@needs_node
def test_twenty_random_settings_are_pythons() -> None:
    asked, expected = [], []
    for s in _settings():
        device = replace(DEVICES[s["device"]], gb_s=DEVICES[s["device"]].gb_s * 2 ** s["bandwidth"])
        cfg = DiTConfig.uniform(blocks=s["blocks"], heads=s["heads"], ffn=s["ffn"], hidden=2048, head_dim=64)
        (width, height), frames = s["size"], s["frames"]
        count = dit_counts(cfg, latent_grid(frames, height, width), 77)["total"]
        grid = latent_grid(frames, height, width)
        rate = example_rate(clip_stages(cfg, grid, steps=s["steps"]), s["decoder"], device, s["efficiency"], frames)
        expected.append([rate, count.params, count.flops / 1e12, count.params * 6 / 8e6])
        model = DATA["model"] | {"blocks": s["blocks"], "heads": s["heads"], "ffn": s["ffn"]}
        question = {"tflops": device.tflops, "gbs": device.gb_s, "efficiency": s["efficiency"], "frames": frames,
                    "width": width, "height": height, "steps": s["steps"], "decoderTflop": s["decoder"]}  # fmt: skip
        asked.append([model, question])
    program = f"""
        const live = require({json.dumps(str(live.SCRIPT))});
        const found = {json.dumps(asked)}.map(([s, q]) => {{
          const made = live.plan(s, live.tokensOf(q.frames, q.width, q.height));
          return [live.rate(s, q), made.params, made.tflop, made.megabytes[2]];
        }});
        console.log(JSON.stringify(found));
    """
    for found, wanted in zip(json.loads(_node(program)), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-9)  # the bar is 1 %; the formulas are the same


@needs_node
def test_the_page_shows_pythons_number_and_follows_a_slider() -> None:
    """The page's own script in node, with the few parts of a document that it touches."""
    html = live.page(DATA)
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    values = {"device": 0, "size": 0, "efficiency": 0.25, "bandwidth": 0, "frames": 49, "steps": 4, "decoder": 1.6,
              "blocks": 20, "heads": 20, "ffn": 6144}  # fmt: skip
    program = f"""
        const values = Object.entries({json.dumps(values)});
        const fields = Object.fromEntries(values.map(([k, v]) => [k, {{value: String(v)}}]));
        const shown = {{".speed": {{}}, ".plan": {{}}}};
        let update;
        const root = {{
          querySelector: (q) => q.startsWith("[name=") ? fields[q.slice(6, -1)] : shown[q],
          querySelectorAll: () => [], addEventListener: (_, f) => {{ update = f; }},
        }};
        let asked = 0;  // the output is not part of the document at first
        globalThis.document = {{getElementById: () => asked++ ? root : null}};
        eval({json.dumps(script)});
        setTimeout(() => {{
          const before = shown[".speed"].textContent;
          fields.steps.value = "8"; update();
          console.log(JSON.stringify([before, shown[".speed"].textContent, shown[".plan"].textContent]));
        }}, 500);
    """
    before, after, plan = json.loads(_node(program))
    for text, steps in ((before, 4), (after, 8)):
        rate = example_rate(clip_stages(MOBILE, (7, 12, 16), steps=steps), 1.6, DEVICES[0], 0.25, 49)
        assert text.startswith(f"{rate:.1f} frames/s at 25 %")
    assert plan.startswith("960 M parameters") and "2 packages in float16" in plan


def test_the_page_holds_all_it_needs() -> None:
    html = live.page(DATA)
    assert "http" not in html and "fetch" not in html and "src=" not in html
    assert all(f'name="{n}"' in html for n in ("device", "size", "efficiency", "steps", "ffn"))
