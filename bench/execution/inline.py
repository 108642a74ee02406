"""One job after the other in this process: for debuggers, profilers and machines without Ray."""

import time

from bench.core.signals import stop_on_signals
from bench.execution.jobs import JobContext, run_job
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job


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
