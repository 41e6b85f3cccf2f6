"""`mobivid site`: the committed notebooks and their outputs as a static site, in `runs/site/`.

jupyter-book turns a copy of README, notebooks and figures into pages; nothing runs and nothing is fetched, neither when
the site is built nor when it is read: formulas are drawn by a MathJax beside the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
import yaml

from mobivid_core.command import CommandParser, run_command
from mobivid_core.errors import MobiVidError, RunError
from mobivid_core.lab.teaching.editions import edition_of
from mobivid_core.lab.teaching.masters import read_masters
from mobivid_core.paths import notebooks_dir, project_root

#: Pages beside the notebooks, where they are there; the first is the landing page.
PAGES = (
    "README.md", "docs/running.md", "docs/training.md", "docs/claims.md", "notebooks/teaching/INSTRUCTORS.md",
    "data/README.md",
)  # fmt: skip
_LINK = re.compile(r"\]\(([^)#\s:]+)")
_FETCHED = re.compile(
    r"<(?:script|img|video|source|iframe|link(?=[^>]*rel=\"(?:stylesheet|preload|icon|shortcut icon)\"))"
    r"[^>]*?\s(?:src|href)=\"((?:https?:)?//[^\"]+)\"",
    re.IGNORECASE,
)
#: jupyter-book's own, without thebe (it names a CDN) and intersphinx (it fetches).
_EXTENSIONS = [
    "sphinx_togglebutton", "sphinx_copybutton", "myst_nb", "jupyter_book", "sphinx_comments", "sphinx_external_toc",
    "sphinx_design", "sphinx_book_theme", "sphinx-mathjax-offline",
]  # fmt: skip
#: jupyter-book's configuration: outputs as they are, no launch buttons, nothing from a CDN.
CONFIG = {
    "title": "MobiVid",
    "author": "",
    "copyright": "",
    "execute": {"execute_notebooks": "off"},
    "only_build_toc_files": True,
    "html": {"use_issues_button": False, "use_repository_button": False, "extra_footer": ""},
    "launch_buttons": {"binderhub_url": ""},
    # Formulas, but no {{substitutions}}: braces are LaTeX here.
    "parse": {"myst_enable_extensions": ["dollarmath", "amsmath", "tasklist"]},
    "sphinx": {
        "config": {
            "extensions": _EXTENSIONS,
            "nb_ipywidgets_js": {},
            "html_context": {"default_mode": "auto"},
            "html_static_path": ["_static"],
            "html_show_copyright": False,
            "language": "en",
        },
    },
}
#: Clips no wider than the page, wide tables with a scroll bar of their own, one search box instead of two.
STYLE = """\
video { max-width: 100%; height: auto; }
.cell_output table { display: block; width: fit-content; max-width: 100%; overflow-x: auto; font-size: 0.85em; }
.cell_output table :is(th, td) { text-align: left !important; padding: 0.2rem 0.6rem; }
.bd-header { display: none !important; }
"""


def contents(root: Path) -> dict:
    """jupyter-book's table of contents: README first, the notebooks in their order, what else there is to read."""
    notebooks, exercises = ((root / "notebooks").glob(glob) for glob in ("0*.ipynb", "teaching/*.ipynb"))
    reading = [root / name for name in PAGES[1:] if (root / name).is_file()]
    reading += sorted((root / "data" / "checkpoints").glob("*/README.md"))
    parts = []
    for caption, paths in (("Notebooks", sorted(notebooks)), ("Exercises", sorted(exercises)), ("More", reading)):
        files = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
        parts.append({"caption": caption, "chapters": [{"file": name} for name in files]})
    return {"format": "jb-book", "root": "README", "parts": [part for part in parts if part["chapters"]]}


def write_source(folder: Path) -> None:
    """Write everything jupyter-book reads into an empty `folder`."""
    root = project_root()
    pages = [root / name for name in PAGES if (root / name).is_file()]
    linked = [page.parent / target for page in pages for target in _LINK.findall(page.read_text(encoding="utf-8"))]
    for source in (path.resolve() for path in (*pages, *linked, *notebooks_dir().glob("0*.ipynb"))):
        if source.is_file():
            target = folder / source.relative_to(root.resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for master in read_masters():  # what a student gets: the site shows no solutions
        target = folder / "notebooks" / "teaching" / f"{master.name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(edition_of(master, "student"), target)
    (folder / "_static").mkdir()
    (folder / "_static" / "mobivid.css").write_text(STYLE, encoding="utf-8")
    for name, content in (("_config", CONFIG), ("_toc", contents(folder))):
        (folder / f"{name}.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def fetched(site: Path) -> dict[str, list[str]]:
    """Addresses that a page would fetch from the network by itself: page -> addresses. Links to click do not count."""
    found = {}
    for page in sorted(site.rglob("*.html")):
        addresses = _FETCHED.findall(page.read_text(encoding="utf-8"))
        if addresses:
            found[str(page.relative_to(site))] = sorted(set(addresses))
    return found


def build(target: Path) -> Path:
    """Build the site, which replaces `target` when it is complete; returns the first page.

    MobiVidError tells of what is not installed, RunError of a failed build or a page that would fetch something.
    """
    missing = [name for name in ("jupyter_book", "sphinx-mathjax-offline") if find_spec(name) is None]
    if missing:
        raise MobiVidError(
            f"the site needs {' and '.join(missing)}; `make site` installs them in an environment of their own"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".site-") as work:
        source, output = Path(work) / "source", Path(work) / "output"
        source.mkdir()
        write_source(source)
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
        command += ["build", str(source), "--path-output", str(output), "-q"]
        done = subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}, capture_output=True, text=True)
        print(done.stderr.replace(f"{source}/", ""), file=sys.stderr, end="")
        html = output / "_build" / "html"
        if done.returncode or not (html / "index.html").is_file():
            raise RunError(f"jupyter-book failed with status {done.returncode}; its output:\n{done.stdout[-2000:]}")
        remote = fetched(html)
        if remote:
            raise RunError(f"these pages would fetch something from the network: {remote}")
        if target.exists():
            shutil.rmtree(target)
        html.rename(target)
    return target / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = CommandParser("site", __doc__)
    parser.add_out("folder to write (default: runs/site of the project)", project_root() / "runs" / "site")
    return run_command(lambda options: print(f"open {build(options.out)}"), parser, arguments)
