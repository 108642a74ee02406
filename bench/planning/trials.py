"""The trials of a tuning: each method with values of its search space, on a hold-out. Runs nothing."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.errors import UserError
from bench.core.registry import method_class
from bench.core.search import Space, search_space
from bench.data.dataset import Dataset
from bench.data.spec import HOLDOUT, DatasetSpec, preset_name
from bench.planning.estimate import step_counts
from bench.planning.graph import Cell, Fit, Job, plan_sets, recorded_hyperparameters
from bench.planning.sweep import MethodEntry, Sweep, build_method
from bench.records.trial import TrialRecord

HELD_OUT = 0.2  # of each class of the training set


@dataclass(frozen=True)
class Trial:
    """One trial: what is run, and the record that it begins with."""

    record: TrialRecord
    label: str  # for people
    distill: Job
    prepare: tuple[Job, ...]  # what it needs, inputs first
    scores: tuple[Job, ...]  # evaluations whose students are the score


def on_holdout(sweep: Sweep) -> Sweep:
    """The sweep as it is tuned: on a hold-out of each training set, with a seed that the sweep does not have.

    Raises:
        UserError: for several distillation architectures, and a data set with a hold-out of its own.
    """
    if len(sweep.distill.architectures) > 1:
        raise UserError("distill.architectures: presets do not depend on it, so tune with one: name one")
    for spec in sweep.datasets:
        if spec.holdout:
            raise UserError(f"datasets: {spec.label}: holdout: tuning holds out by itself: leave it out")
    seeds = {*sweep.distill.seeds, *range(max(entry.seeds or 0 for entry in sweep.methods))}
    unused = next(seed for seed in itertools.count() if seed not in seeds)
    return sweep.model_copy(
        update={
            "datasets": tuple(
                DatasetSpec(**{**spec.model_dump(), "holdout": HELD_OUT}) for spec in sweep.datasets
            ),
            "methods": tuple(entry for entry in sweep.methods if space_of(entry)),
            "distill": sweep.distill.model_copy(update={"seeds": (unused,)}),
        }
    )


def space_of(entry: MethodEntry) -> Space:
    """Where to look for what the sweep's entry leaves open."""
    return search_space(method_class(entry.name), entry.values.keys())


class TunedCell:
    """A method of the sweep on one data set and ipc: plans its trials.

    Args:
        sweep: as `on_holdout` makes it.
        entry: the method.
        spec: the data set, with its hold-out.
        data: the same, read.
        ipc: images per class.
        sampler: name of what chooses values.
        fit: of a sweep with a budget.
    """

    def __init__(
        self,
        sweep: Sweep,
        entry: MethodEntry,
        spec: DatasetSpec,
        data: Dataset,
        ipc: int,
        sampler: str,
        fit: Fit | None = None,
    ) -> None:
        self.entry, self.space, self.ipc = entry, space_of(entry), ipc
        self._sweep, self._data, self._fit, self._sampler = sweep, data, fit, sampler
        self._dataset = spec.label.removesuffix(HOLDOUT)
        self._presets = preset_name(spec.name, spec.label)
        fixed = ", ".join(f"{name}={value}" for name, value in entry.values.items())
        self.label = f"{entry.name}{f'[{fixed}]' if fixed else ''} {self._dataset} ipc {ipc}"
        self.key, self._steps = "", dict[str, int]()
        self.default = self.plan(0, {})
        self.key = self.default.record.key
        if fit:  # what the budget pays for; no searched value moves the cost of a step
            chosen = self.default.distill.identity["hyperparameters"]
            self._steps = {name: chosen[name] for name in step_counts(chosen)[:1]}

    def plan(self, number: int, values: Mapping[str, Any]) -> Trial:
        """The trial with these values. Raises UserError where the method refuses them."""
        sweep, entry = self._sweep, self.entry
        (architecture,), (seed,) = sweep.distill.architectures, sweep.distill.seeds
        asked = entry.model_copy(update={"values": {**entry.values, **self._steps, **values}})
        jobs: dict[str, Job] = {}
        cell, fit = Cell(self._data, self.ipc, architecture, seed), None if self._steps else self._fit
        sets = plan_sets(jobs, sweep, sweep.protocols, asked, self._presets, [cell], fit)
        if not sets:
            raise UserError(f"{self.label}: the budget does not pay for a step")
        (distill,) = sets
        scores = tuple(job for job in jobs.values() if job.kind == "evaluate")
        method = build_method(entry.name, distill.identity["hyperparameters"])
        record = TrialRecord(
            key=_key(distill, scores, entry.values),
            cell=self.key or _key(distill, scores, entry.values),
            number=number,
            method=entry.name,
            fixed=entry.values,
            dataset=self._dataset,
            presets=self._presets,
            holdout=HELD_OUT,
            ipc=self.ipc,
            architecture=architecture.label,
            protocols=[protocol.name for protocol in sweep.protocols],
            students=sweep.evaluate.students,
            seed=seed,
            sampler=self._sampler,
            values={name: getattr(method, name) for name in self.space},
            hyperparameters=recorded_hyperparameters(distill.identity),
            state="running",
        )
        prepare = tuple(job for job in jobs.values() if job.kind == "prepare")
        return Trial(record, f"{self.label}, trial {number}", distill, prepare, scores)


def _key(distill: Job, scores: tuple[Job, ...], fixed: Mapping[str, Any]) -> str:
    text = json.dumps([distill.key, [job.key for job in scores], fixed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_cells(
    sweep: Sweep, datasets: Mapping[str, Dataset], sampler: str, fit: Fit | None = None
) -> Iterator[TunedCell]:
    """Each method, data set and ipc of a sweep that is tuned on `datasets`, by label."""
    for spec in sweep.datasets:
        for entry in sweep.methods:
            for ipc in sweep.ipc:
                yield TunedCell(sweep, entry, spec, datasets[spec.label], ipc, sampler, fit)
