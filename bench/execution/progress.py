"""What is seen while a sweep runs: jobs by kind, the time left, and how far each distillation is."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.core.loop import StepReport, read_step_report
from bench.execution.store import Store
from bench.planning.graph import JOB_KINDS, Job

PRINT_EVERY_S = 10.0  # seconds between lines where there is no terminal to redraw


class Progress:
    """Lines that redraw themselves on a terminal; elsewhere new lines every few seconds, from a thread.

    What a distillation tells is read from the result folder, so it does not matter where the job runs.
    """

    def __init__(
        self, jobs: Mapping[str, Job], done: set[str], workers: int, console: Console, store: Store
    ) -> None:
        self.jobs, self.workers, self.console, self.store = jobs, workers, console, store
        self.total = Counter(job.kind for job in jobs.values())
        self.done = Counter(jobs[key].kind for key in done)
        self.failed: Counter[str] = Counter()
        self.running: set[str] = set()
        self.seconds: dict[str, list[float]] = {kind: [] for kind in JOB_KINDS}
        self.start = time.monotonic()
        self._live = Live(console=console, get_renderable=self.lines, refresh_per_second=2, transient=True)
        self._stop = threading.Event()
        self._printer = threading.Thread(target=self._print, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live.start()
        else:
            self._printer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()
        else:
            self._stop.set()
            self._printer.join()
        self.console.print(self.line(), highlight=False)

    def _print(self) -> None:
        while not self._stop.wait(PRINT_EVERY_S):
            self.console.print(self.lines(), highlight=False, soft_wrap=True)

    def started(self, key: str) -> None:
        self.running.add(key)

    def finished(self, key: str, ok: bool, seconds: float) -> None:
        self.running.discard(key)
        kind = self.jobs[key].kind
        (self.done if ok else self.failed)[kind] += 1
        if ok:
            self.seconds[kind].append(seconds)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def left(self) -> float | None:
        """Seconds to go, from the mean of the finished jobs of each kind; None while there are too few."""
        every = [s for values in self.seconds.values() for s in values]
        if len(every) < max(3, len(self.jobs) // 20):
            return None  # the first ones are no sample
        typical = sum(every) / len(every)
        total = 0.0
        for kind in JOB_KINDS:
            todo = self.total[kind] - self.done[kind] - self.failed[kind]
            values = self.seconds[kind]
            total += todo * (sum(values) / len(values) if values else typical)
        return total / self.workers

    def lines(self) -> Text:
        """The line of the sweep, and one for each running distillation that has told something."""
        reports = {key: read_step_report(self.store.checkpoint(key)) for key in sorted(self.running)}
        told = [
            Text(f"  {self.jobs[key].label}  {describe_step(report)}")
            for key, report in reports.items()
            if report
        ]
        return Text("\n").join([self.line(), *told])

    def line(self) -> Text:
        """`12 s  prepare 3/3  distill 8/19 (2 running)  evaluate 3/38  about 95 s left`."""
        running = Counter(self.jobs[key].kind for key in tuple(self.running))  # it changes meanwhile
        parts = [f"{time.monotonic() - self.start:4.0f} s"]
        for kind in JOB_KINDS:
            if self.total[kind]:
                notes = [f"{running[kind]} running"] if running[kind] else []
                notes += [f"{self.failed[kind]} failed"] if self.failed[kind] else []
                note = f" ({', '.join(notes)})" if notes else ""
                parts.append(f"{kind} {self.done[kind]}/{self.total[kind]}{note}")
        left = self.left()
        if left:
            parts.append(f"about {duration(left)} left")
        return Text("  ".join(parts), style="red" if self.failed else "")


def describe_step(report: StepReport) -> str:
    """`step 340/1000  loss 1.23  45 steps/s  about 12 s left`."""
    speed = f"{report.speed:,.0f}" if report.speed >= 10 else f"{report.speed:.2g}"
    parts = [f"step {report.step}/{report.total}"]
    parts += [f"loss {report.loss:.3g}"] if report.loss is not None else []
    return "  ".join([*parts, f"{speed} steps/s", f"about {duration(report.left_s)} left"])


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
