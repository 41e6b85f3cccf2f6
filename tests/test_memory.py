"""Freed memory is handed back where glibc would keep it."""

import os
import platform
import subprocess
import sys

import pytest

from mobivid_core import memory
from mobivid_core.memory import GLIBC_ENVIRONMENT

# 400 MB in pieces with a small one left between each two: a heap that glibc alone cannot shrink from its end
PROGRAM = """
import sys, time, numpy as np, psutil
from mobivid_core.memory import keep_memory_low
if sys.argv[1] == "keep":
    keep_memory_low(limit=150 * 2**20)
    keep_memory_low(limit=150 * 2**20)
pieces = []
for _ in range(400):
    pieces += [np.ones(2**20, np.uint8), np.ones(2000, np.uint8)]
del pieces[::2]
time.sleep(3)
print(psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_heap_full_of_holes_shrinks() -> None:
    def held(mode: str) -> int:
        command = [sys.executable, "-c", PROGRAM, mode]
        run = subprocess.run(command, capture_output=True, check=True, env=os.environ | GLIBC_ENVIRONMENT, text=True)
        return int(run.stdout)

    assert held("keep") < held("leave") - 300 * 2**20


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.threading, "Thread", lambda **_: pytest.fail("nothing to hand back"))
    memory.keep_memory_low()
