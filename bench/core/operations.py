"""Floating-point operations of a job, counted from shapes: some of its steps stand for all of them."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.core import timing
from bench.core.timing import Operation

FEWEST, MOST = 2, 16  # steps of a distillation that are counted: more where the first ones differ
PART = 20  # but no more than one in so many, as counted steps are slower


class OperationCounter(TorchDispatchMode):
    """Floating-point operations of convolutions and matrix products, by PyTorch's own formulae.

    A multiply-add is two; backward passes of any order are counted. PyTorch's FlopCounterMode hooks modules
    too, and fails where `autograd.grad` asks for gradients inside of them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's guard against its compiler takes longer than a look at the operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = flop_registry.get(func._overloadpacket)
        if count is None and torch.is_inference_mode_enabled():  # there, linear maps arrive undivided
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return out


class JobOperations:
    """Counts the operations of a job while it runs; what it leaves out runs as fast as without.

    Of a training inside the job the first step is counted, and stands for the others in proportion to their
    images. Of a distillation the first steps are: two where they are equal, else up to 16. Where networks
    take turns, it is the first step of a network, the last one, and some between them that stand for the
    others. What comes before and after the steps is counted.

    Args:
        period: steps under one network; 0 where that says nothing.
        stride: how many steps after the first one stand for the others of a network.
        cut: leave out the steps that are not counted: the job is run for its count alone.
        counter: counts; by default as records do.
    """

    def __init__(
        self,
        period: int = 0,
        stride: int = 1,
        cut: bool = False,
        counter: OperationCounter | None = None,
    ) -> None:
        self.cut = cut
        self.steps: list[float] = []  # operations of the steps that were counted
        self.total = 0  # steps of the loop
        self._period, self._stride, self._counter = period, stride, counter or OperationCounter()
        self._running = self._on = False
        self._projected = self._in_steps = self._begin = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what runs inside; must not be nested."""
        self._running = True
        self._switch(True)
        try:
            with timing.watching(self):
                yield
        finally:
            self._switch(False)
            self._running = False  # a loop that an exception left is closed later

    @property
    def fixed(self) -> float:
        """Operations outside of the steps of a loop."""
        return self._so_far - self._in_steps

    @property
    def step(self) -> float:
        """Operations of a step of the loop, the mean; 0 without a loop."""
        counted, period = self.steps, min(self._period, self.total)
        if len(counted) < 3 or len(counted) >= period:
            return sum(counted) / max(1, len(counted))
        between = counted[1:-1]
        return (counted[0] + (period - 2) * sum(between) / len(between) + counted[-1]) / period

    @property
    def sum(self) -> float:
        """Operations of the whole job."""
        return self.fixed + self.step * self.total

    # --- the loop of a distillation -------------------------------------------------------------------------

    def begin_loop(self, total: int, counted: list[float]) -> None:
        """A loop of so many steps begins, of which an earlier process has counted some."""
        self.total, self.steps = total, counted
        self._switch(False)

    def begin_step(self, step: int) -> bool:
        """Begin a step; whether it is counted. It must be ended with `end_step` then."""
        if self._period:
            counts = step <= self._stride or step == self._period - 1
            counts = counts and step < self._period
        else:
            n = len(self.steps)
            most = MOST if self.cut else min(MOST, self.total // PART)
            counts = n < FEWEST or (n < most and len(set(self.steps)) > 1)
        if not counts:
            return False
        self._switch(True)
        self._begin = self._so_far
        return True

    def end_step(self) -> None:
        """End a step that is counted."""
        self._switch(False)
        self.steps.append(self._so_far - self._begin)
        self._in_steps += self.steps[-1]

    def end_loop(self) -> None:
        """Count what comes after the loop."""
        self._switch(True)

    # --- as a `timing.Watcher` ------------------------------------------------------------------------------

    def inside(self, operation: Operation) -> AbstractContextManager[None]:
        """See `timing.Watcher`."""
        return nullcontext()

    def through(self, operation: Operation, arguments: tuple[object, ...], result: object) -> None:
        """See `timing.Watcher`."""

    def paced(self, n: int, share: float) -> Iterable[int]:
        """See `timing.Watcher`."""
        return self._first(n, share) if self._on else range(n)

    def _first(self, n: int, share: float) -> Iterator[int]:
        begin = self._so_far
        if n:
            yield 0
        first = self._so_far - begin
        self._switch(False)
        try:
            yield from range(max(1, n - 1), n) if self.cut else range(1, n)
        finally:
            self._switch(True)
            self._projected += first * (n * share - 1) if n else 0

    @property
    def _so_far(self) -> float:
        return self._counter.flops + self._projected

    def _switch(self, on: bool) -> None:
        """Count, or let everything run as fast as without."""
        if on and not self._on and self._running:
            self._counter.__enter__()  # type: ignore[no-untyped-call]  # untyped in torch
            self._on = True
        elif self._on and not on:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # untyped in torch
            self._on = False
