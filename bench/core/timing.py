"""Seconds and peak memory of one phase, and the names of its operations for `ddbench profile`."""

import functools
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, Protocol, TypeVar, get_args

import torch

# The operations of `ddbench profile`. Real gradient: reading real images, and what is matched or scored of
# them (gradients, features, the outer loss). Synthetic gradient: the same of the synthetic ones, and on to
# their pixels. Network update: making and training networks.
Operation = Literal[
    "decode",
    "augment",
    "real gradient",
    "synthetic gradient",
    "hypergradient",
    "network update",
    "evaluation",
    "other",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Measured:
    """Seconds and peak memory of a phase; filled in when the phase ends.

    On a CPU `peak_bytes` is the peak resident memory of the whole process, libraries included. On a GPU it is
    the peak of the memory that torch allocated there.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work; on a CPU this does nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def measure(device: torch.device) -> Iterator[Measured]:
    """Measure the time and the peak memory of what runs inside.

    Args:
        device: where the phase computes.

    Yields:
        The measurement, filled in when the block ends.
    """
    measured = Measured()
    reset_peak(device)
    synchronize(device)
    start = time.perf_counter()
    yield measured
    synchronize(device)
    measured.seconds = time.perf_counter() - start
    measured.peak_bytes = peak_bytes(device)


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # Linux only, and not everywhere allowed; elsewhere the peak is the process's so far
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Peak memory in bytes since the last reset, as defined by `Measured`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The device's name in tables: the model of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --- operations, for a profile that watches ---------------------------------------------------------------


class Watcher(Protocol):
    """What a profile implements to measure the operations of a step."""

    def inside(self, operation: Operation) -> AbstractContextManager[None]:
        """Charge what runs in this block to the operation, except for inner blocks that name another."""
        ...

    def through(self, operation: Operation, arguments: tuple[object, ...], result: object) -> None:
        """Charge backward passes through `result`, computed from `arguments`, to the operation as well."""
        ...

    def paced(self, n: int, share: float) -> Iterable[int]:
        """Step numbers 0 .. n-1, or only some of them, but always 0 and n-1; `share` as in `timing.paced`."""
        ...


_watcher: Watcher | None = None
_IDLE = nullcontext()


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Let this watcher measure what runs inside the block; None turns measuring off."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def part(operation: Operation) -> AbstractContextManager[None]:
    """`with part("augment"):` names the operation that runs inside; 0.1 microseconds without a watcher."""
    return _IDLE if _watcher is None else _watcher.inside(operation)


def charged(operation: Operation) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function to name its operation, also for the backward pass through what it returns."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            watcher = _watcher
            if watcher is None:
                return function(*args, **kwargs)
            with watcher.inside(operation):
                result = function(*args, **kwargs)
            watcher.through(operation, args, result)
            return result

        return call

    return decorate


def paced(n: int, share: float = 1.0) -> Iterable[int]:
    """The step numbers of a training run inside a step or a prerequisite: range(n), or fewer when profiled.

    Once a profile's time is up, its watcher leaves out all steps but the last.

    Args:
        n: number of steps.
        share: the mean size of their batches, as a part of the size of the first one.
    """
    return range(n) if _watcher is None else _watcher.paced(n, share)
