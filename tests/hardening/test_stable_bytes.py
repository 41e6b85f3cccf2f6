"""The same result gives the same bytes in another process, so that a committed figure changes only with its content."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobivid_core.files import tree_hashes
from mobivid_core.paths import project_root

MAKE = """
import matplotlib.pyplot as plt, numpy as np, pandas as pd, torch
from mobivid_core.show.diagram import pipeline_figure
from mobivid_core.show.results import Results
from mobivid_core.show.style import use_style
use_style()
results = Results(notebook="01_vae_compression", profile="smoke")
fig, axes = plt.subplots(1, 2)
for name in sorted({"one", "two", "three"}):
    axes[0].plot(np.sin(np.arange(50) * len(name)), label=name)
axes[0].legend(), axes[0].set_title("$\\\\sqrt{x}$"), axes[1].imshow(np.arange(12).reshape(3, 4))
results.figure("figure", fig, finding="f", evidence="measured", data=pd.DataFrame({"x": [0.1, None]}))
results.figure("pipeline", pipeline_figure(), finding="f", evidence="derived")
clips = torch.sin(torch.arange(2 * 3 * 9 * 32 * 32).reshape(2, 3, 9, 32, 32) / 900.0)
results.media("clips", clips, finding="f", evidence="measured", titles=["a", "b"])
results.table("table", pd.DataFrame({"a": [1, 2.5], "b": ["x", None]}), finding="f", evidence="derived")
results.headline("number", 1 / 3)
"""


#: Settings of a user who likes other figures.
MATPLOTLIBRC = """
savefig.bbox: tight
savefig.transparent: True
font.size: 15
lines.linewidth: 4
axes.facecolor: black
text.color: red
xtick.direction: in
image.cmap: gray
image.interpolation: nearest
legend.loc: lower left
mathtext.fontset: cm
"""


def _made(runs: Path, seed: str, command: list[str], rc: str = "") -> dict[str, str]:
    environment = os.environ | {"MOBIVID_RUNS": str(runs), "PYTHONHASHSEED": seed, "MPLBACKEND": "Agg"}
    if rc:
        runs.mkdir()
        (runs / "matplotlibrc").write_text(rc)
        environment["MATPLOTLIBRC"] = str(runs / "matplotlibrc")
    environment["MOBIVID_ROOT"] = str(project_root())
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return tree_hashes(runs / "smoke" / "figures")


def test_every_kind_of_result_is_stable_to_the_byte_across_processes(tmp_path: Path) -> None:
    first, second = (_made(tmp_path / seed, seed, ["-c", MAKE], rc) for seed, rc in (("1", ""), ("2", MATPLOTLIBRC)))
    assert first == second  # whatever the user's matplotlibrc says
    assert {Path(name).suffix for name in first} == {".png", ".csv", ".json", ".mp4", ".webp", ".jpg"}


@pytest.mark.slow
def test_a_notebooks_figures_are_stable_to_the_byte(tmp_path: Path) -> None:
    command = ["-m", "mobivid_core", "reproduce", "--profile", "smoke", "--only", "00"]
    first, second = (_made(tmp_path / seed, seed, command) for seed in ("1", "2"))
    assert first == second and "start_clips.mp4" in first and "start_pipeline.png" in first
