"""Reports of the jobs that have no loop of their own: prepare, tune and evaluate."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from bench.core.counting import WorkCounter, counting
from bench.core.loop import write_step_report

REPORT_S = 1.0  # between reports


@contextlib.contextmanager
def reporting(folder: Path) -> Iterator[WorkCounter]:
    """Write into `folder`, about once a second, how far the work in this block is; it is gone at the end.

    A thread writes, so that the work never waits for the file system.
    """
    counter, ended = WorkCounter(), threading.Event()

    def write() -> None:
        while not ended.wait(REPORT_S):
            if report := counter.report():
                with contextlib.suppress(OSError):  # a report is never worth the job
                    write_step_report(folder, report)

    writer = threading.Thread(target=write, name="step reports", daemon=True)
    writer.start()
    try:
        with counting(counter):
            yield counter
    finally:
        ended.set()
        writer.join()
        shutil.rmtree(folder, ignore_errors=True)
