"""JupyterLab on a copy of the notebooks, and headless Chromium in front of it.

Server, kernels, settings and runs live in a temporary folder: nothing of the user's own Jupyter is read or changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nbformat
import pandas as pd
import pytest

from mobivid_core.errors import CheckpointError
from mobivid_core.lab.browser import RECORD, browser_record
from mobivid_core.lab.runner.kernel import own_kernel
from mobivid_core.paths import data_dir, notebooks_dir, project_root
from mobivid_core.studies.records import write_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
#: Substring of a console error -> why it is not ours. Everything else counts.
ALLOWED: dict[str, str] = {}
START_SECONDS = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what was seen to data/benchmarks/browser.csv")
    parser.addoption(
        "--widgets-only", action="store_true", help="run only the cells that a notebook's widgets stand on: faster"
    )
    parser.addoption("--screenshots", type=Path, help="folder for a picture of every widget")


class Lab(NamedTuple):
    """A running JupyterLab."""

    address: str
    notebooks: Path  # the folder that it shows as notebooks/


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on copies of the notebooks, at profile smoke and without outputs."""
    import papermill

    home = tmp_path_factory.mktemp("lab")
    place = home / "root" / "notebooks"
    place.mkdir(parents=True)
    for source in sorted(notebooks_dir().glob("0*.ipynb")):
        copy = place / source.name
        papermill.execute_notebook(str(source), str(copy), {"PROFILE": "smoke"}, prepare_only=True, progress_bar=False)
        notebook = nbformat.read(copy, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, copy)
    port = _free_port()
    own = {
        f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")
    } | {f"JUPYTERLAB_{kind}_DIR": str(home / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}  # fmt: skip
    own |= {"MOBIVID_ROOT": str(project_root()), "MOBIVID_RUNS": str(home / "runs")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={home / 'root'}", "--LabApp.expose_app_in_browser=True"]
    log = home / "server.log"
    with own_kernel("browser"), log.open("w") as out:
        server = subprocess.Popen(command, env=os.environ | own, stdout=out, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_up(address, server, log)
            yield Lab(address, place)
        finally:
            server.terminate()  # stops the kernels, too
            server.wait(60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    api = pytest.importorskip("playwright.sync_api", reason='playwright is missing: pip install -e ".[browser]"')
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        pytest.skip(f"no Chromium on the path (looked for {', '.join(CHROMIUM)}): install your system's package")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


class Console:
    """Errors of one page: console, uncaught exceptions, and requests that left this machine (refused)."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        page.on("console", lambda message: message.type == "error" and self._add(f"{message.text} {message.location}"))
        page.on("pageerror", lambda error: self._add(f"uncaught: {error}"))
        page.route(lambda url: not url.startswith(("http://127.0.0.1", "data:", "blob:")), self._refuse)

    def _refuse(self, route) -> None:  # noqa: ANN001
        self._add(f"request to the network: {route.request.url}")
        route.abort()

    def _add(self, text: str) -> None:
        if not any(part in text for part in ALLOWED):
            self.errors.append(text)


@pytest.fixture()
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page with `page.console`, a `Console`."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.console = Console(page)
    yield page
    page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")  # kernels hold a gigabyte each
    context.close()


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Iterator[list[dict]]:
    """What was moved and what came of it.

    With --record it goes to `data/benchmarks/`, beside the rows of notebooks that this run left out if the same
    versions made them.
    """
    found: list[dict] = []
    yield found
    if not found or not request.config.getoption("--record", default=False):
        return
    table = pd.DataFrame(found)
    versions = {"profile": "smoke", "chromium": request.getfixturevalue("browser").version}
    versions |= {name: version(name) for name in ("jupyterlab", "ipywidgets", "playwright")}
    with contextlib.suppress(CheckpointError):  # no record yet
        before, facts = browser_record()
        if versions.items() <= facts.items():
            table = pd.concat([before[~before.notebook.isin(table.notebook)], table])
    facts = {"date": datetime.now(UTC).date().isoformat(), **versions}
    write_record(data_dir() / "benchmarks" / RECORD, table.sort_values("notebook", kind="stable"), facts)
