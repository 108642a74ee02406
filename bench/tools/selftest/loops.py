"""Loops that a self-test gives to methods: one step whose gradients are kept, or steps that are measured."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop, Stateful, Steps
from bench.core.operations import OperationCounter
from bench.tools.selftest.setting import forbidding_syncs


class GradientLoop(Loop):
    """Keeps the set that is learned, whose gradients its last step leaves.

    Args:
        exact: the set is float64, as the networks and images of the problem then are.
    """

    def __init__(self, exact: bool) -> None:
        super().__init__()
        self.exact, self.synthetic = exact, list[DistilledDataset]()

    def steps(
        self, total: int, synthetic: DistilledDataset, blame: str, **state: Stateful | torch.Generator
    ) -> Steps:
        """As `Loop.steps`."""
        self.synthetic = [synthetic.double() if self.exact else synthetic]
        return super().steps(total, synthetic, blame, **state)

    @property
    def gradient(self) -> Tensor | None:
        """Of everything that is learned, one after the other, float64 on the CPU; None without any."""
        kept = [p.grad for synthetic in self.synthetic for p in synthetic.parameters() if p.grad is not None]
        return torch.cat([g.detach().double().flatten().cpu() for g in kept]) if kept else None


class MeasuredLoop(Loop):
    """One step to warm up, then some in which nothing may wait for the device, then timed and counted ones.

    Args:
        device: where the method computes.
        strict: steps in which what waits for a GPU raises.
        seconds: of the timed steps, which are not waited for one by one.
        counted: count the operations of a step at the end.
    """

    def __init__(
        self, device: torch.device, strict: int = 0, seconds: float = 0.0, counted: bool = False
    ) -> None:
        super().__init__()
        self.device, self.strict, self.seconds_wanted, self.counted = device, strict, seconds, counted
        self.timed, self.took_s = 0, 0.0
        self.flops: int | None = None
        self._running: Iterator[int] | None = None

    def steps(
        self, total: int, synthetic: DistilledDataset, blame: str, **state: Stateful | torch.Generator
    ) -> Steps:
        """As `Loop.steps`, but for some of them."""
        self.total = total
        return _MeasuredSteps(self, total, blame, {"synthetic": synthetic, **state})

    def close(self) -> None:
        """End what a step was in when the method stopped."""
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]

    @property
    def rate(self) -> float | None:
        """Steps a second."""
        return self.timed / self.took_s if self.timed else None

    def run_steps(self) -> Iterator[int]:
        """Yield the numbers of steps as long as it wants any."""
        yield 0
        number = 1
        for _ in range(self.strict):
            with forbidding_syncs(self.device):
                yield number
            number += 1
        timing.synchronize(self.device)
        begin = time.perf_counter()
        while self.seconds_wanted and (not self.timed or time.perf_counter() - begin < self.seconds_wanted):
            yield number
            number, self.timed = number + 1, self.timed + 1
            if self.timed % 8 == 0:  # the clock must not run ahead of the device
                timing.synchronize(self.device)
        timing.synchronize(self.device)
        self.took_s = time.perf_counter() - begin
        if self.counted:
            with OperationCounter() as counter:
                yield number
            self.flops = counter.flops


class _MeasuredSteps(Steps):
    def loss(self, value: Tensor) -> None:
        pass

    def __iter__(self) -> Iterator[int]:
        assert isinstance(self.loop, MeasuredLoop)
        self.loop._running = self.loop.run_steps()
        return self.loop._running
