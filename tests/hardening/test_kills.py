"""A run may be stopped anywhere: the next one ends with the same bytes as a run that nobody stopped."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

STOPS = 20


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_twenty_stops_at_random_points_change_nothing(project, tmp_path, how):
    began = time.monotonic()
    done = project.run()
    assert done.returncode == 0, done.stderr
    whole, takes = project.outcome(), time.monotonic() - began
    assert len(whole) > 10
    chance = random.Random(how.value)
    stopped = dataclasses.replace(project, runs=tmp_path / "stopped")
    completions = stops = 0
    while stops < STOPS:
        process = stopped.start()
        try:
            said, errors = process.communicate(timeout=chance.uniform(0, takes))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, how)
            stops += 1
            said, errors = process.communicate(timeout=60)
        if process.returncode == 0:  # resumed to the end: nothing may differ; then once more from nothing
            assert stopped.outcome() == whole
            shutil.rmtree(stopped.runs)
            completions += 1
            continue
        assert "want of memory" not in errors and "never retrieved" not in errors, errors
        if how == signal.SIGINT:
            assert process.returncode in (130, -signal.SIGINT), errors
    done = stopped.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert stopped.outcome() == whole
    print(f"{stops} stops, {completions} completed in between")
