"""A tuning and its result folder: which trial is next, what is known of each, and the order to stop."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.io import write_atomic
from bench.data.cache import prepare_dataset, read_dataset
from bench.execution.capacity import Capacity
from bench.execution.jobs import JobContext
from bench.execution.machine import check_resources
from bench.execution.provenance import job_sources, same_sources, versions
from bench.execution.samplers import make_sampler, sampler_name
from bench.execution.session import Session, compute_budget, dataset_place
from bench.execution.store import Store
from bench.execution.trials import forget
from bench.planning.checks import check_data
from bench.planning.graph import Job
from bench.planning.sweep import load_sweep
from bench.planning.trials import Trial, TunedCell, on_holdout, plan_cells
from bench.records.trial import TRIALS, WHOLE, Rung, TrialRecord, best_trial, dump_trial, load_trials

ATTEMPTS = 50  # to find values that the method takes and no trial had: small spaces end
Tell = Callable[[str], None]


class CellTrials:
    """The trials of one cell: those that were recorded, and those still to run.

    Args:
        cell: plans them.
        n: how many there are to be.
        recorded: of the result folder, of any cell.
    """

    def __init__(self, cell: TunedCell, n: int, recorded: list[TrialRecord]) -> None:
        self.cell, self.n = cell, n
        self.records = {trial.number: trial for trial in recorded if trial.cell == cell.key}
        self.sampler = make_sampler(cell.space, cell.key)
        self.running: dict[int, Trial] = {}
        for trial in self.ended:
            self.sampler.learn(trial)

    @property
    def ended(self) -> list[TrialRecord]:
        """Those with a result, by number."""
        return [trial for _, trial in sorted(self.records.items()) if trial.state != "running"]

    @property
    def best(self) -> TrialRecord | None:
        """See `best_trial`."""
        return best_trial(self.ended)

    @property
    def left(self) -> list[int]:
        """The numbers of trials that neither run nor have a result."""
        done = {trial.number for trial in self.ended} | self.running.keys()
        return [number for number in range(self.n) if number not in done]

    def start(self, number: int) -> Trial | None:
        """The trial of this number, to be run; None where the space has no further values."""
        trial = self._plan(number)
        if trial is None:
            self.n = number  # and no later one
            return None
        known = self.records.get(number)
        if known is not None and known.key == trial.record.key:
            trial = Trial(known, trial.label, trial.distill, trial.prepare, trial.scores)
        self.records[number], self.running[number] = trial.record, trial
        return trial

    def _plan(self, number: int) -> Trial | None:
        if number == 0:
            return self.cell.default
        if number in self.records:  # begun in an earlier run
            return self.cell.plan(number, self.records[number].values)
        taken = [self.cell.default.record.values, *(trial.values for trial in self.records.values())]
        for attempt in range(ATTEMPTS):
            if (values := self.sampler.values(number, attempt)) not in taken:
                with suppress(UserError):  # the method refuses these values together
                    return self.cell.plan(number, values)
        return None


@dataclass
class Tuning(Session):
    """One sweep that is tuned, and its result folder."""

    cells: list[CellTrials] = field(default_factory=list)
    without: list[str] = field(default_factory=list)  # methods that declare no search space

    @classmethod
    def begin(
        cls, path: Path, overrides: list[str], out: Path | None, n: int, on_cluster: bool, tell: Tell
    ) -> "Tuning":
        """Read and check everything before anything starts, as `Session.open`. Raises UserError."""
        whole = load_sweep(path, overrides)
        root = (out or Path("results") / f"{whole.name}_tuned").resolve()
        try:
            sweep = on_holdout(whole)
            without = sorted({e.name for e in whole.methods} - {e.name for e in sweep.methods})
            if not sweep.methods:
                raise UserError(
                    f"methods: {', '.join(without)}: no search space, so there is nothing to tune"
                )
            check_resources(sweep.resources, on_cluster)
            paths = {spec.label: prepare_dataset(spec) for spec in sweep.datasets}
            loaded = {label: read_dataset(place) for label, place in paths.items()}
            check_data(sweep, loaded)
            budget = compute_budget(sweep, loaded, tell)
            recorded, problems = load_trials(root)
            if problems:
                raise UserError(f"{root}: {problems[0]}")
            planned = plan_cells(sweep, loaded, sampler_name(), budget.fit if budget else None)
            cells = [CellTrials(cell, n, recorded) for cell in planned]
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return cls(
            resources=sweep.resources,
            jobs={job.key: job for one in cells for job in one.cell.default.prepare},
            store=Store(root),
            lenders=[],
            datasets={loaded[s.label].fingerprint: dataset_place(s, paths[s.label]) for s in sweep.datasets},
            sweep=sweep,
            budget=budget,
            cells=cells,
            without=without,
        )

    @property
    def missing(self) -> dict[str, Job]:
        """Prerequisites of the default values that are not there, inputs first."""
        needed = {job.key for one in self.cells if one.left for job in one.cell.default.prepare}
        return {
            key: job
            for key, job in self.jobs.items()
            if key in needed and self.store.state(job.kind, key) is not None
        }

    def context(self, capacity: Capacity | None = None) -> JobContext:
        """What jobs and trials need apart from their identity; `capacity`: of a cluster."""
        return self._context(capacity)

    def next(self) -> tuple[CellTrials, Trial] | None:
        """The next trial: each method's first ones before anyone's second ones; None while there is none."""
        waiting = [(one.left[0], place) for place, one in enumerate(self.cells) if one.left]
        for number, place in sorted(waiting):
            if trial := self.cells[place].start(number):
                self._write(self.cells[place], trial.record)  # killed, it goes on with the same values
                return self.cells[place], trial
        return None

    @property
    def left(self) -> int:
        """How many trials have no result."""
        return sum(one.n - len(one.ended) for one in self.cells)

    @property
    def made_by_others(self) -> int:
        """How many trials were made by other sources than today's."""
        today = {one.cell.key: job_sources(one.cell.default.distill) for one in self.cells}
        return sum(
            same_sources(today[one.cell.key], trial.versions) is False
            for one in self.cells
            for trial in one.ended
        )

    def note(self, one: CellTrials, number: int, report: Mapping[str, Any]) -> TrialRecord:
        """Write down what a trial reports: a rung, with costs beside it, or an error."""
        record = one.records[number]
        if report.get("error"):
            return self._write(one, record.model_copy(update={"error": report["error"]}))
        rung = Rung(**{name: report[name] for name in Rung.model_fields})
        if any(rung.percent <= known.percent for known in record.rungs):
            return record  # repeated by a second process
        costs = {
            name: report[name] for name in ("prepare_operations", "prepare_s", "device") if name in report
        }
        return self._write(one, record.model_copy(update={"rungs": [*record.rungs, rung], **costs}))

    def end(self, one: CellTrials, number: int) -> TrialRecord:
        """A trial has ended, by itself or because it was stopped."""
        record, trial = one.records[number], one.running.pop(number)
        error = record.error or (None if record.rungs else "it ended without a report")
        state = "failed" if error else "finished" if record.rungs[-1].percent == WHOLE else "stopped"
        made_by = versions() | job_sources(trial.distill)
        ended = {"state": state, "error": error, "versions": made_by}
        record = self._write(one, record.model_copy(update=ended))
        one.sampler.learn(record)
        forget(self.store, trial.distill.key)
        return record

    def _write(self, one: CellTrials, record: TrialRecord) -> TrialRecord:
        one.records[record.number] = record
        write_atomic(self.store.root / TRIALS / f"{record.key}.json", dump_trial(record))
        return record

    def told(self, one: CellTrials, record: TrialRecord) -> str:
        """A line on a trial that has ended."""
        if record.state == "failed":
            what = f"failed: {record.error}"
        else:
            last = record.rungs[-1]
            early = "" if record.state == "finished" else f", stopped at {last.percent} %"
            what = f"{100 * last.accuracy:.1f}{early}"
        best = one.best
        against = "" if best is None or best is record else f"; best {100 * (best.final or 0):.1f}"
        values = ", ".join(f"{name}={value}" for name, value in record.values.items())
        left = f"{self.left} left"
        return f"{one.cell.label}, trial {record.number} ({values}): {what}{against}; {left}"
