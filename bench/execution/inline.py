"""One job after the other in this process: for debuggers, profilers and machines without Ray."""

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

from bench.execution.jobs import JobContext, run_job
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does; both also where a shell started us in the background, ignoring Ctrl-C."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_inline(queue: ReadyQueue, context: JobContext, progress: Progress) -> Outcome:
    """Run until nothing is left; Ctrl-C ends it and is noted in the outcome."""
    outcome, begin = Outcome(), time.monotonic()
    try:
        with stop_on_signals():
            while job := queue.next():
                progress.started(job.key)
                finish_job(queue, progress, outcome, job.key, run_job(job, context))
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.seconds = time.monotonic() - begin
    return outcome
