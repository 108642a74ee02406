"""Seconds and bytes of one phase, synchronised with the device."""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Measured:
    """Filled when the phase ends.

    On a CPU `peak_bytes` is the resident peak of the whole process, libraries included: what the machine must
    have. On a GPU it is the peak of the memory that torch had allocated there.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def measure(device: torch.device) -> Iterator[Measured]:
    """Time a phase and watch its memory."""
    measured = Measured()
    _reset_peak(device)
    synchronize(device)
    start = time.perf_counter()
    yield measured
    synchronize(device)
    measured.seconds = time.perf_counter() - start
    measured.peak_bytes = _peak(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # Linux only, and not everywhere allowed; elsewhere the peak is the process's so far
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The device as a table names it: the GPU's or the processor's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
