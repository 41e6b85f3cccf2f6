"""The rehearsal runs every step in a process of its own and reads its record back; the quick checks hold their bars."""

import json
import sys

import pandas as pd
import pytest
import torch

from mobivid_core.__main__ import main
from mobivid_core.errors import CheckpointError, RunError
from mobivid_core.ltx.checks import ltx_forward_error, ltx_masked_pruned_error
from mobivid_core.ltx.command import parser_of
from mobivid_core.ltx.layout import ltx_sizes
from mobivid_core.ltx.random_weights import write_random_ltx
from mobivid_core.prune.costs import parameter_cost
from mobivid_core.studies import records, rehearsal


def test_bars_of_the_quick_checks():
    assert 0 < ltx_forward_error() < 1e-5
    assert 0 < ltx_masked_pruned_error() < 1e-5


def test_the_full_size_is_ltx_video_s():
    sizes = ltx_sizes(rehearsal.BLOCKS, rehearsal.HEADS, rehearsal.HEAD_DIM)
    assert parameter_cost(sizes).total(sizes) == rehearsal.WHOLE
    assert rehearsal.Clip().grid == (7, 12, 16)


def test_random_checkpoints_are_diffusers_own(tmp_path):
    import diffusers

    sizes = ltx_sizes(2, 3, 10, in_channels=6, text_dim=12)
    write_random_ltx(tmp_path, sizes)
    model = diffusers.LTXVideoTransformer3DModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) == parameter_cost(sizes).total(sizes)


def test_seconds_and_memory_are_of_the_child_alone():
    work = "import time; block = bytearray(300_000_000); block[::4096] = b'x' * len(block[::4096]); time.sleep(0.3)"
    seconds, peak = rehearsal.run_measured([sys.executable, "-c", work])
    assert seconds > 0.3 and 0.3 < peak < 0.4
    _, small = rehearsal.run_measured([sys.executable, "-c", "pass"])
    assert small < 0.1
    with pytest.raises(RunError, match="status 1.*no such luck"):
        rehearsal.run_measured(
            [sys.executable, "-c", "import sys; sys.exit(print('no such luck', file=sys.stderr) or 1)"]
        )


def test_headlines_come_from_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "record_folder", lambda: tmp_path)
    with pytest.raises(CheckpointError, match="mobivid study rehearsal"):
        rehearsal.headlines()
    rows = {"step": ["inspect", "score"], "seconds": [5.0, 120.0], "peak_gb": [0.5, 6.5], "tflop": [0.0, 30.0]}
    pd.DataFrame(rows).to_csv(tmp_path / "ltx_rehearsal.csv", index=False)
    facts = {"blocks": 28, "heads": 32, "tokens": 1344, "dtype": "bfloat16", "samples": 3, "cores": 2}
    (tmp_path / "ltx_rehearsal.json").write_text(json.dumps(facts))
    assert rehearsal.headlines() == {"rehearsal_score_minutes": 2.0, "rehearsal_peak_gb": 6.5}
    shown = rehearsal.table()
    assert shown.frame["s at 100 TFLOP/s"].tolist() == [0.0, 0.3]
    assert "inspect met, score met. Largest memory 6.5 GB (bar 20: met)" in shown.finding


def test_a_trial_never_overwrites_the_project_s_record(capsys):
    assert main(["study", "rehearsal", "--blocks", "2"]) == 2
    assert "needs --record" in capsys.readouterr().err


#: Two blocks of two heads cannot be halved: the caption projection alone is more than half of them.
TINY = {"blocks": 6, "heads": 2, "samples": 2}
CLIP = rehearsal.Clip(9, 64, 64, 4)


def test_each_step_s_words_run_through_the_one_command(tmp_path, monkeypatch):
    """In this process; the export, tested elsewhere, is parsed only."""

    def run(words, allowed=(0,)):
        assert words[:3] == [sys.executable, "-m", "mobivid_core"]
        if words[3] == "export":
            assert parser_of("export").parse_args(words[4:]).block == 0
        else:
            assert main(words[3:]) in allowed
        ran.append(words[3])
        return 1.0, 0.1

    ran: list[str] = []
    monkeypatch.setattr(rehearsal, "run_measured", run)
    rows, facts = rehearsal.rehearse(tmp_path, **TINY, clip=CLIP)
    assert ran == ["study", "inspect", "score", "plan", "prune", "refit", "study", "export", "study"]
    assert len(rows) == 9 and facts["forward_s"] > 0
    left = ("ltx", "data", "scores", "plan.json", "student", "refitted", "forward.json")
    assert all((tmp_path / name).exists() for name in left)


@pytest.mark.slow
def test_every_step_runs_at_a_tiny_size(tmp_path):
    small = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    assert main(["study", "rehearsal", *small, *CLIP.options(), "--record", str(tmp_path / "r")]) == 0
    rows = pd.read_csv(tmp_path / "r.csv")
    assert len(rows) == 9 and (rows["seconds"] > 0).all() and rows["peak_gb"].between(0.05, 3).all()


def test_the_faster_type_computes_where_it_fits(tmp_path, monkeypatch, capsys):
    import psutil

    from mobivid_core.ltx import checkpoint
    from mobivid_core.train.precision import Precision

    write_random_ltx(tmp_path, ltx_sizes(2, 3, 10, in_channels=6, text_dim=12))  # bfloat16 on disk
    cpu = torch.device("cpu")
    monkeypatch.setattr(checkpoint, "choose", lambda kinds: Precision(False, "timed"))
    assert checkpoint.computing_dtype(tmp_path, cpu) == torch.float32
    assert checkpoint.computing_dtype(tmp_path, cpu, stream=True) is None
    assert checkpoint.computing_dtype(tmp_path, torch.device("cuda")) is None
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    assert checkpoint.computing_dtype(tmp_path, cpu) is None
    assert "kept" in capsys.readouterr().out
    monkeypatch.setattr(checkpoint, "choose", lambda kinds: Precision(True, "timed"))
    assert checkpoint.computing_dtype(tmp_path, cpu) is None
