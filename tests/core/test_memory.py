"""How a process gets its memory: large tensors reuse what was freed."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench.core import memory

FAULTS = """
import resource
import bench.core
import torch
torch.set_num_threads(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
x = torch.ones(3 * 2**20)  # 12 MiB
def work():
    held = [x + i for i in range(4)]
    return [y.sum() for y in held]
work()
before = faults()
for _ in range(10):
    work()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is tuned")
def test_freed_memory_is_used_again() -> None:
    """Ten times four tensors of 12 MiB: without it, a page fault for every 4 KiB of them."""

    environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.2 * 10 * 4 * 12 * 2**20 / 4096


def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    memory.reuse_memory()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_another_system_is_left_as_it_is(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Linux without glibc has no mallopt; elsewhere not even the library is opened."""
    monkeypatch.setattr(sys, "platform", platform)
    opened: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: opened.append(name) or SimpleNamespace())
    memory.reuse_memory()
    assert opened == ([None] if platform == "linux" else [])
