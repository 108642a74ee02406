"""The clock of a profile: at any time one operation is charged, so that their times add up to the total."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core import timing
from bench.core.timing import OPERATIONS, Operation


@dataclass(frozen=True)
class CutTraining:
    """A training loop that ran `taken` of its `asked` steps."""

    asked: int
    taken: int
    seconds: float


class OperationTimer:
    """Measures the time of each operation in nanoseconds, without that of operations inside it.

    A backward pass belongs to the operation whose results it goes through: a hook on these, where they have
    a gradient, says so when the pass arrives. Everything else is "other". On a GPU the clock waits for the
    device whenever the operation changes, so nothing overlaps. Trainings take no step but their last one
    once `seconds` are over; without, all of them.

    torch.profiler cannot do this: its scopes do not follow a backward pass, and its sequence numbers do not
    follow the gradient of a gradient.
    """

    def __init__(
        self,
        device: torch.device,
        seconds: float = float("inf"),
        now: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._device, self._seconds, self._now = device, seconds, now
        self.spent: dict[Operation, int] = dict.fromkeys(OPERATIONS, 0)
        self.loops: list[CutTraining] = []
        self._stack: list[Operation] = []  # operations that run; empty: the clock is stopped
        self._backward: int | None = None  # height of the stack when the current backward pass began
        self._last = 0

    @contextmanager
    def running(self, operation: Operation = "other") -> Iterator[None]:
        """Run the clock, and measure this thread and its backward passes; must not be nested."""
        timing.synchronize(self._device)
        self._begin = self._last = self._now()
        self._stack = [operation]
        try:
            with timing.watching(self):
                yield
        finally:
            self._book()
            self._stack, self._backward = [], None

    @property
    def total(self) -> int:
        """Nanoseconds that the clock has run."""
        return sum(self.spent.values())

    @contextmanager
    def inside(self, operation: Operation) -> Iterator[None]:
        """See `timing.Watcher`."""
        depth = len(self._stack)
        self._book()
        self._stack.append(operation)
        try:
            yield
        finally:
            self._book()
            del self._stack[depth:]
            if self._backward is not None and self._backward > depth:  # a backward pass in here failed
                self._backward = None

    def through(self, operation: Operation, arguments: tuple[object, ...], result: object) -> None:
        """See `timing.Watcher`."""
        for made in result if isinstance(result, tuple) else (result,):
            passed_on = any(made is given for given in arguments)
            # a leaf was not computed here, and would keep the hook for ever
            if isinstance(made, Tensor) and made.requires_grad and not made.is_leaf and not passed_on:
                made.register_hook(lambda _: self._arrive(operation))

    def _arrive(self, operation: Operation) -> None:
        """A backward pass enters the operation, and leaves the previous one."""
        if not self._stack:  # the clock has been stopped
            return
        self._book()
        if self._backward is None:
            self._backward = len(self._stack)
        torch.autograd.Variable._execution_engine.queue_callback(self._leave)
        self._stack[self._backward :] = [operation]

    def _leave(self) -> None:
        """The backward pass has ended."""
        if self._backward is not None and self._stack:
            self._book()
            del self._stack[self._backward :]
        self._backward = None

    def paced(self, n: int, share: float = 1.0) -> Iterator[int]:
        """See `timing.Watcher`."""
        start, step, taken = self._now(), 0, 0
        while step < n:
            if self._now() - self._begin > 1e9 * self._seconds:
                step = n - 1
            yield step
            step, taken = step + 1, taken + 1
        timing.synchronize(self._device)
        self.loops.append(CutTraining(n, taken, (self._now() - start) / 1e9))

    def _book(self) -> None:
        """Charge the time since the last change to the operation on top of the stack."""
        if self._stack:
            timing.synchronize(self._device)
            now = self._now()
            self.spent[self._stack[-1]] += now - self._last
            self._last = now
