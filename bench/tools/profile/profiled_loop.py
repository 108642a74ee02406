"""The loop of a profiled method: one step to warm up, then timed, watched, counted and traced steps."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop, Stateful, Steps
from bench.core.operations import OperationCounter
from bench.core.timing import Operation
from bench.tools.profile import energy
from bench.tools.profile.operation_timer import OperationTimer

FEWEST_STEPS = 2  # that are timed, and that are watched
COUNTED, TRACED = 5, 3  # most steps, within a tenth of the time each


class ProfiledLoop(Loop):
    """The loop of a method that is profiled.

    The first step is not measured. Then steps are timed for half of `seconds`. With a path for a trace, a
    timer then watches steps for a third of `seconds`, the operations of some steps are counted, and a Chrome
    trace of some is written. At most half of the method's steps are timed, and as many watched, but always a
    few. Losses are not checked, and there are no snapshots or checkpoints.

    Args:
        device: where the method computes.
        seconds: for the steps.
        trace: the file for the trace.
    """

    def __init__(self, device: torch.device, seconds: float, trace: Path | None = None) -> None:
        super().__init__()
        self.device, self.budget, self.trace = device, seconds, trace
        self.begin = time.perf_counter()
        self.setup_s = 0.0  # before the first step
        self.timed: list[float] = []  # seconds of each step
        self.watched: list[float] = []
        self.timer = OperationTimer(device)
        self.flops: list[int] = []
        self.peak_bytes = 0
        self.joules: float | None = None  # of the timed steps
        self._steps: Iterator[int] | None = None

    def steps(
        self, total: int, synthetic: DistilledDataset, blame: str, **state: Stateful | torch.Generator
    ) -> "Steps":
        """Iterate over some steps of the method, see `Loop.steps`."""
        if self.total is not None:
            raise ValueError("a profile has one loop of steps: the method asks for a second one")
        self.total = total
        return _Steps(self, total, blame, {"synthetic": synthetic, **state})

    def close(self) -> None:
        """End the measurement that was running when the method stopped."""
        if self._steps is not None:
            self._steps.close()  # type: ignore[attr-defined]

    @property
    def step_s(self) -> float:
        """Seconds of a typical step: the median."""
        return median(self.timed)

    @property
    def projected_s(self) -> float:
        """Seconds of all steps, from the mean, because some steps start with a new network."""
        assert self.total is not None
        return self.setup_s + self.total * fmean(self.timed)

    def run_steps(self) -> Iterator[int]:
        """Yield the number of each step, and measure it."""
        assert self.total is not None
        timing.synchronize(self.device)
        self.setup_s = time.perf_counter() - self.begin
        numbers, half = itertools.count(), max(FEWEST_STEPS, self.total // 2)
        with timing.watching(None):
            yield next(numbers)
            with energy.metered(self.device) as used:
                yield from self._some(numbers, self.timed, self.budget / 2, FEWEST_STEPS, half)
            self.joules = used.joules
        if self.trace:
            with self.timer.running():
                yield from self._some(numbers, self.watched, self.budget / 3, FEWEST_STEPS, half)
            self.peak_bytes = timing.peak_bytes(self.device)
            for number in self._some(numbers, [], self.budget / 10, 1, COUNTED):
                with OperationCounter() as counter:
                    yield number
                self.flops.append(counter.flops)
            with write_trace(self.trace, self.device):
                yield from self._some(numbers, [], self.budget / 10, 1, TRACED)

    def _some(
        self, numbers: Iterator[int], into: list[float], seconds: float, fewest: int, most: int
    ) -> Iterator[int]:
        """Steps for so long, and what each takes."""
        begin = last = time.perf_counter()
        while len(into) < fewest or (last - begin < seconds and len(into) < most):
            yield next(numbers)
            timing.synchronize(self.device)
            now = time.perf_counter()
            into.append(now - last)
            last = now


class _Steps(Steps):
    def loss(self, value: Tensor) -> None:
        pass

    def __iter__(self) -> Iterator[int]:
        assert isinstance(self.loop, ProfiledLoop)
        self.loop._steps = self.loop.run_steps()
        return self.loop._steps


class _Ranges:
    """A watcher that names the operations in a trace."""

    def inside(self, operation: Operation) -> record_function:
        return record_function(operation)

    def through(self, operation: Operation, arguments: tuple[object, ...], result: object) -> None:
        pass

    def paced(self, n: int, share: float) -> range:
        return range(n)


@contextmanager
def write_trace(path: Path, device: torch.device) -> Iterator[None]:
    """Write a Chrome trace of what runs inside (chrome://tracing, ui.perfetto.dev)."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with torch.profiler.profile(activities=activities) as profiler, timing.watching(_Ranges()):
        yield
        timing.synchronize(device)
    profiler.export_chrome_trace(str(path))
