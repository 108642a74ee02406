"""How far a training or a scoring is: counted in whole numbers, so that nothing waits for the device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.core.loop import StepReport

STEP_PASSES = 3  # a training step of an image, forward and backward, costs about three forward passes


@dataclass
class WorkCounter:
    """The training steps of a job, and the images that went through its networks, of those announced.

    Images are what time left is told by: they stand for steps and for scoring alike. What comes before the
    first announcement is no part of the work.
    """

    rounds: int = 1  # how many times the announced work comes; later rounds announce theirs when they begin
    steps: int = 0
    passes: int = 0
    _announced: int = 0  # rounds
    _steps: int = 0  # announced
    _passes: int = 0
    _step_passes: int = 0
    _begin: float = 0.0

    def announce(self, steps: int, step_passes: int, then: int) -> None:
        """The work of one round."""
        self._begin = self._begin or time.perf_counter()
        self._announced += 1
        self._steps += steps
        self._passes += steps * step_passes + then
        self._step_passes = step_passes

    def count(self, steps: int, passes: int) -> None:
        """So many steps were taken, and so many more images went through a network."""
        if self._announced:
            self.steps += steps
            self.passes += steps * self._step_passes + passes

    def report(self) -> StepReport | None:
        """How far it is; None while nothing is announced or done."""
        if not self._steps or not self.passes:
            return None
        rounds = max(self.rounds, self._announced) / self._announced
        total, passes = round(self._steps * rounds), self._passes * rounds
        spent, step = time.perf_counter() - self._begin, min(self.steps, total)
        left = max(0.0, passes - self.passes) / self.passes * spent
        return StepReport(step, total, None, step / spent, left)


_counter: WorkCounter | None = None


@contextmanager
def counting(counter: WorkCounter) -> Iterator[None]:
    """Let this counter hear what is done inside the block."""
    global _counter
    before, _counter = _counter, counter
    try:
        yield
    finally:
        _counter = before


def announce(steps: int, batch_size: int, n_images: int, then: int = 0) -> None:
    """Announce the training of networks, and images that are scored or embedded afterwards.

    Args:
        steps: of all networks together.
        batch_size: images of a step.
        n_images: of the training set; a batch has no more.
        then: images times the networks that they go through afterwards.
    """
    if _counter is not None:
        _counter.announce(steps, STEP_PASSES * min(batch_size, n_images), then)


def announce_rounds(n: int) -> None:
    """Announce that what is announced next comes `n` times."""
    if _counter is not None:
        _counter.rounds = n


def count_steps(n: int = 1) -> None:
    """So many training steps were taken, of those announced."""
    if _counter is not None:
        _counter.count(n, 0)


def count_passes(images: int) -> None:
    """So many images went through a network, without a gradient."""
    if _counter is not None:
        _counter.count(0, images)
