"""One job after the other in this process: for debuggers, profilers and machines without Ray."""

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

from bench import job as job_module
from bench.job import Context
from bench.progress import Progress
from bench.sweep.frontier import Frontier, Outcome, finish


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


def run_inline(frontier: Frontier, context: Context, progress: Progress) -> Outcome:
    """Run until nothing is left; Ctrl-C ends it and is noted in the outcome."""
    outcome, begin = Outcome(), time.monotonic()
    try:
        with stop_on_signals():
            while job := frontier.next():
                progress.started(job.key)
                finish(frontier, progress, outcome, job.key, job_module.run(job, context))
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.seconds = time.monotonic() - begin
    return outcome
