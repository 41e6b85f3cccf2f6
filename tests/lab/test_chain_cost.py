"""The record of what the whole chain costs."""

import json

import pandas as pd
import pytest

from mobivid_core.errors import CheckpointError
from mobivid_core.lab import chain_cost
from mobivid_core.lab.chain_cost import RECORD, load_chain, main
from mobivid_core.paths import notebooks_dir

NAMES = sorted(p.stem for p in notebooks_dir().glob("[0-9][0-9]_*.ipynb"))


def spent(names):
    seconds = [10.0 + i for i in range(len(names))]
    return pd.DataFrame({"notebook": names, "seconds": seconds, "peak GB": [s / 10 for s in seconds]})


def test_total_and_peak_leave_the_scorecard_out(tmp_path, monkeypatch):
    monkeypatch.setattr(chain_cost, "costs", lambda profile: spent(NAMES))
    monkeypatch.setattr(chain_cost, "record_folder", lambda: tmp_path)
    main(["laptop", "smoke"])
    table, source = load_chain(tmp_path)
    before = len(NAMES) - 1
    assert table.loc["laptop", "seconds"] == sum(10 + i for i in range(before))
    assert table.loc["smoke", "peak GB"] == pytest.approx((10 + before - 1) / 10)
    assert json.loads((tmp_path / f"{RECORD}.json").read_text())["date"] in source


def test_a_chain_with_a_hole_has_no_total(monkeypatch, capsys):
    monkeypatch.setattr(chain_cost, "costs", lambda profile: spent(NAMES[1:]))
    assert main(["laptop"]) == 2
    assert f"{NAMES[0]} not run here" in capsys.readouterr().err


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(CheckpointError, match="mobivid bench chain laptop smoke"):
        load_chain(tmp_path)
