"""One job after the other in this process: for debuggers, profilers and machines without Ray."""

from bench.core.signals import stop_on_signals
from bench.execution.jobs import JobContext, run_job
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job


def run_inline(queue: ReadyQueue, context: JobContext, progress: Progress) -> Outcome:
    """Run until nothing is left; Ctrl-C and a fault of the device end it and are noted in the outcome."""
    outcome = Outcome()
    outcome.begin()
    try:
        with stop_on_signals():
            while job := queue.next():
                progress.started(job.key)
                result = run_job(job, context)
                if result["fault"]:
                    progress.stopped(job.key)
                    outcome.lost = f"{job.label}: {result['error']}: the GPU fails whatever runs here next"
                    break
                finish_job(queue, progress, outcome, job.key, result)
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.end()
    return outcome
