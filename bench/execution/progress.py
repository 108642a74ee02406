"""Progress of a sweep: jobs by kind, time left, and how far each running job is."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from bench.core.loop import StepReport, read_step_report
from bench.core.words import duration
from bench.execution.capacity import Limit, least_seconds
from bench.execution.store import Store
from bench.planning.estimate import Estimate, Estimator, Source
from bench.planning.graph import JOB_KINDS

PRINT_EVERY_S = 10.0  # seconds between lines where there is no terminal to redraw


class Progress:
    """Bars on a terminal; elsewhere new lines every few seconds, from a thread.

    The step of a running job is read from the result folder, so it does not matter where it runs.
    """

    def __init__(
        self,
        costs: Estimator,
        done: set[str],
        workers: int,
        console: Console,
        store: Store,
        limits: Sequence[Limit] = (),
    ) -> None:
        """`costs` knows the plan, and learns from each job that ends well; `done` are keys of it.

        `limits`: what bounds the work beside the number of workers, where kinds get different resources.
        """
        self.costs, self.jobs = costs, costs.jobs
        self.workers, self.limits, self.console, self.store = workers, limits, console, store
        self.open = {key: None for key in self.jobs if key not in done}  # inputs first
        self.total = Counter(job.kind for job in self.jobs.values())
        self.done = Counter(self.jobs[key].kind for key in done)
        self.failed: Counter[str] = Counter()
        self.running: dict[str, float] = {}  # since when
        self.start = time.monotonic()
        self._bars = _Bars(self)
        self._stop = threading.Event()
        self._printer = threading.Thread(target=self._print, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._bars.start()
        else:
            self._printer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()
        else:
            self._stop.set()
            self._printer.join()
        self.console.print(self.line({}), highlight=False)

    def _print(self) -> None:
        while not self._stop.wait(PRINT_EVERY_S):
            self.console.print(self.lines(), highlight=False, soft_wrap=True)

    def started(self, key: str) -> None:
        """A job has started."""
        self.running[key] = time.monotonic()

    def stopped(self, key: str) -> None:
        """A job runs no longer, and will be tried again."""
        self.running.pop(key, None)

    def finished(self, key: str, ok: bool, seconds: float) -> None:
        """A job has ended, well or not."""
        self.running.pop(key, None)
        self.open.pop(key, None)
        (self.done if ok else self.failed)[self.jobs[key].kind] += 1
        if ok:
            self.costs.learn_job(key, seconds, Source.RUN)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, highlight=False, markup=False)

    def left(self, reports: Mapping[str, StepReport]) -> Estimate:
        """Seconds to go: of all jobs, shared by the workers, or of the longest chain of jobs if that is more.

        A running job is as far as it tells; what it will have taken is also expected of others of its group
        until one has finished.
        """
        now, running = time.monotonic(), dict(self.running)
        taken = {key: now - begin for key, begin in running.items()}
        self.costs.expect({key: _whole(reports[key], taken[key]) for key in reports if key in taken})
        work, longest, at_least = dict.fromkeys(JOB_KINDS, 0.0), 0.0, False
        end: dict[str, float] = {}
        for key in tuple(self.open):
            seconds = reports[key].left_s if key in reports else self.costs.seconds(key)
            if seconds is None:
                seconds, at_least = 0.0, True
            elif key in taken and key not in reports:
                seconds = max(0.0, seconds - taken[key])
            inputs = self.jobs[key].inputs.values()
            end[key] = seconds + max((end.get(needed, 0.0) for needed in inputs), default=0.0)
            work[self.jobs[key].kind] += seconds
            longest = max(longest, end[key])
        shared = least_seconds(self.limits, work) if self.limits else sum(work.values()) / self.workers
        return Estimate(max(shared, longest), at_least)

    def reports(self) -> dict[str, StepReport]:
        """The latest report of each running job that has written one."""
        found = {key: read_step_report(self.store.checkpoint(key)) for key in sorted(tuple(self.running))}
        return {key: report for key, report in found.items() if report}

    def lines(self) -> Text:
        """The line of the sweep, and one for each running job that has reported."""
        reports = self.reports()
        each = [Text(f"  {self.jobs[key].label}  {describe_step(report)}") for key, report in reports.items()]
        return Text("\n").join([self.line(reports), *each])

    def note(self, kind: str) -> str:
        """`2 running, 1 failed`; empty where neither is."""
        running = sum(self.jobs[key].kind == kind for key in tuple(self.running))  # it changes meanwhile
        parts = [f"{running} running"] if running else []
        parts += [f"{self.failed[kind]} failed"] if self.failed[kind] else []
        return ", ".join(parts)

    def line(self, reports: Mapping[str, StepReport]) -> Text:
        """`12 s  prepare 3/3  distill 8/19 (2 running)  evaluate 3/38  about 95 s left`."""
        parts = [f"{time.monotonic() - self.start:4.0f} s"]
        for kind in JOB_KINDS:
            if self.total[kind]:
                note = f" ({self.note(kind)})" if self.note(kind) else ""
                parts.append(f"{kind} {self.done[kind]}/{self.total[kind]}{note}")
        left = self.left(reports)
        if left.seconds:
            parts.append(f"{left} left")
        return Text("  ".join(parts), style="red" if self.failed else "")


_COLUMNS = (
    rich_progress.TextColumn("{task.description}"),
    rich_progress.BarColumn(bar_width=24),
    rich_progress.MofNCompleteColumn(),
    rich_progress.TextColumn("{task.fields[note]}"),
)


class _Bars(rich_progress.Progress):
    """A bar for each kind of job and for each running one, brought up to date when it is drawn."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown  # first: the base class draws while it is made
        self._updating = False
        self._kinds: dict[str, rich_progress.TaskID] = {}
        self._steps: dict[str, rich_progress.TaskID] = {}
        super().__init__(*_COLUMNS, console=shown.console, transient=True, refresh_per_second=2)
        for kind in JOB_KINDS:
            if shown.total[kind]:
                self._kinds[kind] = self.add_task(kind, total=shown.total[kind], note="")

    def get_renderables(self) -> Iterable[RenderableType]:
        reports = self._shown.reports()
        self._bring_up_to_date(reports)
        yield self._shown.line(reports)
        yield from super().get_renderables()

    def _bring_up_to_date(self, reports: Mapping[str, StepReport]) -> None:
        if self._updating:  # adding a task draws, which comes back here
            return
        self._updating = True
        try:
            self._update_tasks(self._shown, reports)
        finally:
            self._updating = False

    def _update_tasks(self, shown: Progress, reports: Mapping[str, StepReport]) -> None:
        for kind, task in self._kinds.items():
            self.update(task, completed=shown.done[kind], note=shown.note(kind), refresh=False)
        for key in self._steps.keys() - reports.keys():
            self.remove_task(self._steps.pop(key))
        for key, report in reports.items():
            if key not in self._steps:
                self._steps[key] = self.add_task(f"  {shown.jobs[key].label}", total=report.total, note="")
            self.update(self._steps[key], completed=report.step, note=_pace(report), refresh=False)


@contextlib.contextmanager
def show_steps(folder: Path, label: str, console: Console) -> Iterator[None]:
    """Show how far the distillation is that keeps its loop in `folder`: a bar on a terminal, else nothing."""
    if not console.is_terminal:
        yield
        return
    with _StepBar(folder, label, console):
        yield


class _StepBar(rich_progress.Progress):
    """One distillation, read from its folder whenever it is drawn."""

    def __init__(self, folder: Path, label: str, console: Console) -> None:
        self._folder = folder
        super().__init__(*_COLUMNS, console=console, transient=True, refresh_per_second=2)
        self._steps = self.add_task(label, total=None, note="")

    def get_renderables(self) -> Iterable[RenderableType]:
        report = read_step_report(self._folder)
        if report:
            self.update(
                self._steps, total=report.total, completed=report.step, note=_pace(report), refresh=False
            )
        yield from super().get_renderables()


def describe_step(report: StepReport) -> str:
    """`step 340/1000  loss 1.23  45 steps/s  about 12 s left`."""
    return f"step {report.step}/{report.total}  {_pace(report)}"


def _whole(report: StepReport, taken: float) -> float:
    """What a running job will have taken; more than in this process where it goes on from a checkpoint."""
    return max(taken + report.left_s, report.total / report.speed if report.speed else 0.0)


def _pace(report: StepReport) -> str:
    speed = f"{report.speed:,.0f}" if report.speed >= 10 else f"{report.speed:.2g}"
    parts = [f"loss {report.loss:.3g}"] if report.loss is not None else []
    return "  ".join([*parts, f"{speed} steps/s", f"about {duration(report.left_s)} left"])
