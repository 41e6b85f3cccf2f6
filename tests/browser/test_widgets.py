"""A reader's hands on the notebooks: run every cell in JupyterLab, move every widget, watch what it shows.

Each control is moved with the keyboard, must change the picture or text beside it, and moved back must restore it.
"""

from __future__ import annotations

import re
import symtable
import time
from typing import TYPE_CHECKING

import nbformat
import pytest

from mobivid_core.lab.runner.source import read_chain
from mobivid_core.paths import notebooks_dir

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser

#: Notebook -> controls its widgets have; the others only show clips, tables and figures.
CONTROLS = {
    "01_vae_compression": ["clip", "codec", "frame"],
    "03_sensitivity_analysis": ["scores"],
    "05_adversarial_distillation": ["clip", "sampler", "frame"],
}
MAKERS = re.compile(r"^(scrubber|picture_picker|explore)\(", re.MULTILINE)
NOTEBOOKS = [notebook.name for notebook in read_chain(notebooks_dir())]  # in order: 05 takes what 04 made
RUN_SECONDS = 1200  # of a whole notebook at smoke, on a busy machine
MOVE_SECONDS = 20
BOX = ".jp-Notebook .jp-Cell:has(.widget-vbox)"

READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
# Execution state of the open notebook's code cells, and what each shows.
CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map((cell, index) => ({
  index, kind: cell.model.type, source: cell.model.sharedModel.getSource(),
  count: cell.model.sharedModel.execution_count ?? null,
  outputs: cell.model.type === 'code' ? cell.model.sharedModel.getOutputs() : []}))"""
GO_TO = """async index => { const notebook = jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index; await notebook.scrollToItem(index, 'center'); }"""
NODE = "index => jupyterapp.shell.currentWidget.content.widgets[index].node"
# Everything that a widget shows apart from its controls: pictures by content (their addresses change with every
# update), texts as they read.
SHOWN = """async node => { const parts = [];
  for (const image of node.querySelectorAll('img.widget-image')) {
    // While a new picture replaces the old one, the old address is gone.
    for (let tries = 0; ; tries++) {
      try { await image.decode(); break; }
      catch (error) { if (tries > 20) throw error; await new Promise(done => setTimeout(done, 100)); } }
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    parts.push(canvas.toDataURL()); }
  for (const text of node.querySelectorAll('.widget-html-content')) parts.push(text.innerText);
  return parts.join('\\n'); }"""
# Browsers hold a clip that is out of sight.
PLAYS = """async video => { video.scrollIntoView({block: 'center'}); await new Promise(done => setTimeout(done, 500));
  const before = video.currentTime; await new Promise(done => setTimeout(done, 1000));
  return video.error === null && video.videoWidth > 0 && video.currentTime !== before; }"""


def test_the_list_of_notebooks_and_controls_is_complete() -> None:
    chain = {notebook.name: notebook for notebook in read_chain(notebooks_dir())}
    with_widgets = {name for name, notebook in chain.items() if any(MAKERS.search(c.source) for c in notebook.cells)}
    assert with_widgets == set(CONTROLS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_widgets_move_and_clips_play(name: str, lab, page: Page, rows: list[dict], request) -> None:  # noqa: ANN001
    found: list[dict] = []
    folder = request.config.getoption("--screenshots", default=None)

    def note(widget: str, changed: bool) -> None:
        found.append({"notebook": name, "widget": widget, "changed": changed, "console_errors": 0})
        found[-1]["console_errors"] = len(page.console.errors) - sum(row["console_errors"] for row in found)

    note("run cells", False)
    try:
        if name in CONTROLS and request.config.getoption("--widgets-only", default=False):
            keep_widgets_cells(lab.notebooks / f"{name}.ipynb")
        cells = run_all(page, f"{lab.address}/lab/tree/notebooks/{name}.ipynb?reset")
        found.clear()
        note(f"run {sum(cell['kind'] == 'code' for cell in cells)} cells", True)
        for cell in cells:
            shown = [output["data"] for output in cell["outputs"] if "data" in output]
            if any("<video" in "".join(data.get("text/html", "")) for data in shown):
                node = go_to(page, cell["index"], "video")
                note(f"clips of cell {cell['count']}", all(v.evaluate(PLAYS) for v in node.query_selector_all("video")))
            elif MAKERS.search(cell["source"]):  # progress bars are widgets, too, but nobody moves them
                go_to(page, cell["index"], ".widget-vbox")
                box = page.locator(BOX).last
                for label, control in controls(box):
                    note(label, moves(box, control))
            else:
                continue
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=folder / f"{name}_{cell['index']}.png")
    finally:
        rows.extend(found)
        if folder:
            page.screenshot(path=folder / f"{name}_last.png")
    moved = [row["widget"] for row in found if not row["widget"].startswith(("run ", "clips of"))]
    assert moved == CONTROLS.get(name, [])
    assert all(row["changed"] for row in found), found
    assert not page.console.errors


SELF_CHECK = """
import ipywidgets as widgets
live, dead = (widgets.IntSlider(value=3, max=3, description=name) for name in ("live", "dead"))
toggle = widgets.ToggleButton(description="toggle")
shown = widgets.HTML("3 False")
def show(_):
    shown.value = f"{live.value} {toggle.value}"
live.observe(show, names="value")
toggle.observe(show, names="value")
widgets.VBox([live, dead, toggle, shown])
"""


def test_a_dead_slider_a_long_label_and_console_errors_are_noticed(lab, page: Page) -> None:  # noqa: ANN001
    for name, source in (("short", SELF_CHECK), ("long", SELF_CHECK.replace('"dead"', '"a label of many words"'))):
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [nbformat.v4.new_code_cell(source)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, lab.notebooks / f"check_{name}.ipynb")
    run_all(page, f"{lab.address}/lab/tree/notebooks/check_short.ipynb?reset")
    go_to(page, 0, ".widget-vbox")
    box = page.locator(BOX)
    assert {label: moves(box, control, seconds=3) for label, control in controls(box)} == {
        "live": True,
        "dead": False,
        "toggle": True,
    }
    assert not page.console.errors
    page.evaluate("() => { console.error('mistake'); fetch('https://example.org/x.js').catch(() => null); }")
    page.wait_for_timeout(500)
    assert "mistake" in page.console.errors[0]
    assert any("request to the network: https://example.org/x.js" in error for error in page.console.errors)
    run_all(page, f"{lab.address}/lab/tree/notebooks/check_long.ipynb?reset")
    go_to(page, 0, ".widget-vbox")
    with pytest.raises(AssertionError, match="cut off"):
        controls(page.locator(BOX))


def keep_widgets_cells(path: Path) -> None:
    """Reduce a notebook to the cells that make widgets or what later notebooks take, and those that define what they
    read, directly or not."""
    notebook = nbformat.read(path, as_version=4)
    kept, wanted = [], set()
    for cell in reversed([cell for cell in notebook.cells if cell.cell_type == "code"]):
        table = symtable.symtable(cell.source, "cell", "exec")
        made = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        if MAKERS.search(cell.source) or "publish(" in cell.source or made & wanted:
            kept.insert(0, cell)
            wanted = wanted - made | read_names(table)
    notebook.cells = kept
    nbformat.write(notebook, path)


def read_names(table: symtable.SymbolTable) -> set[str]:
    """Global names that a cell reads, in its functions and comprehensions as well."""
    outer = table.get_type() == "module"
    own = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (outer or s.is_global())}
    return own.union(*(read_names(inner) for inner in table.get_children()))


def go_to(page: Page, index: int, selector: str):  # noqa: ANN201
    """Scroll to a cell, as JupyterLab only draws what is near; its node, once it holds `selector`."""
    page.evaluate(GO_TO, index)
    node = page.evaluate_handle(NODE, index).as_element()
    node.wait_for_selector(selector, timeout=MOVE_SECONDS * 1000)
    return node


def run_all(page: Page, address: str) -> list[dict]:
    """Open a notebook and run every cell as the menu does; the cells once the last is done.

    Fails with the traceback if one raises.
    """
    page.goto(address)
    page.wait_for_function(READY, timeout=120_000)
    page.evaluate("() => { window.finished = jupyterapp.commands.execute('notebook:run-all-cells').then(() => true); }")
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        cells = page.evaluate(CELLS)
        wrong = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
        assert not wrong, "\n".join(wrong[0]["traceback"])
        if all(cell["count"] for cell in cells if cell["kind"] == "code" and cell["source"].strip()):
            page.evaluate("() => window.finished")
            return page.evaluate(CELLS)
        page.wait_for_timeout(500)
    done = sum(bool(cell["count"]) for cell in cells)
    pytest.fail(f"{done} cells done after {RUN_SECONDS} s")


def controls(box: Locator) -> list[tuple[str, Locator]]:
    """Label and keyboard target of every menu, slider and toggle, from top to bottom.

    Fails on a label that does not fit its place.
    """
    found = []
    for group in box.locator(".widget-inline-hbox").all():
        target, label = group.locator("select, .noUi-handle, input[type=checkbox]"), group.locator(".widget-label")
        if target.count():
            text = label.inner_text()
            assert label.evaluate("node => node.scrollWidth <= node.clientWidth"), f"the label {text!r} is cut off"
            found.append((text, target.first))
    found += [(button.inner_text(), button) for button in box.locator("button.widget-toggle-button").all()]
    return found


def moves(box: Locator, control: Locator, seconds: float = MOVE_SECONDS) -> bool:
    """Whether a step changes what the widget shows, and a step back restores it, each within `seconds`."""
    first = box.evaluate(SHOWN)
    there, back = steps(control)
    there()
    if not settles(box, lambda now: now != first, seconds):
        return False
    back()
    return settles(box, lambda now: now == first, seconds)


def steps(control: Locator) -> tuple:
    """A step and the step back, on a menu, a slider or a toggle."""
    kind = control.evaluate("node => node.tagName")
    if kind == "SELECT":
        now, count = control.evaluate("node => [node.selectedIndex, node.options.length]")
        other = (now + 1) % count
        return lambda: control.select_option(index=other), lambda: control.select_option(index=now)
    if kind == "DIV":
        now, most = (float(control.get_attribute(f"aria-value{key}")) for key in ("now", "max"))
        keys = ("ArrowRight", "ArrowLeft") if now < most else ("ArrowLeft", "ArrowRight")
        return lambda: control.press(keys[0]), lambda: control.press(keys[1])
    return lambda: control.press("Space"), lambda: control.press("Space")


def settles(box: Locator, wanted, seconds: float) -> bool:  # noqa: ANN001
    """Whether the widget comes to show what is wanted within `seconds`."""
    end = time.monotonic() + seconds
    while not wanted(box.evaluate(SHOWN)):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
