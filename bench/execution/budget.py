"""Equal compute: operations counted before anything runs, and as many steps as a budget pays for."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.dry import META, DryRun
from bench.core.errors import UserError, first_line
from bench.core.io import read_json, write_atomic
from bench.core.loop import Loop
from bench.core.method import Method, Problem
from bench.core.operations import JobOperations
from bench.core.registry import block_class
from bench.core.transfer import meta_as
from bench.core.words import flop
from bench.data.cache import cache_dir
from bench.data.dataset import Dataset
from bench.execution.jobs import make_problem
from bench.execution.provenance import job_sources
from bench.planning.estimate import loop_steps, repetition, step_counts
from bench.planning.graph import Cell, Job, plan_distillation
from bench.planning.sweep import MethodEntry, build_method

COUNT_SCHEMA = 1  # raise it when jobs are counted in another way
STAND_INS = 8  # different tensors of a prerequisite, because the epochs of a trajectory must differ
ALIKE = ("block", "bank", "member")  # values of prerequisites that say which one of several it is


@dataclass(frozen=True)
class Counted:
    """Floating-point operations of a job."""

    fixed: float  # outside of its loop
    step: float  # for each of the steps that its hyper-parameters ask for; 0: it has no loop
    steps: int  # that they asked for when it was counted

    def holds(self, steps: int) -> bool:
        """Whether it tells the operations of so many steps: without a loop they are somewhere in `fixed`."""
        return self.step > 0 or steps == self.steps

    def sum(self, steps: int) -> float:
        """Of so many steps."""
        return self.fixed + self.step * steps


class JobCounter:
    """Counts the operations of jobs on one data set, each sort of job once; the counts are kept in the cache.

    A job is run for its first steps, with prerequisites that had as few. A count depends on shapes: seeds,
    numbers of steps, and the numbers of experts' blocks and epochs move none. So it is run on torch's meta
    device, which computes shapes alone; and where that does not do, because a method needs numbers, on the
    device.

    Args:
        data: whose training set the jobs use.
        device: where they are run.
    """

    def __init__(self, data: Dataset, device: torch.device) -> None:
        self.data, self.device, self.jobs = data, device, dict[str, Job]()
        self.sets: dict[str, DistilledDataset] = {}  # of the first steps on the meta device, by sort
        self._split = functools.cache(data.train.to)
        self._made: dict[tuple[torch.device, str], dict[str, Tensor]] = {}  # by sort of prerequisite
        self._known: dict[str, Counted] = {}
        self._like = functools.cache(lambda place, sort, number: like(self._made[place, sort], number))

    def operations(self, key: str) -> float:
        """Of a job, as many steps as it has."""
        return self.counted(key).sum(self.steps(key))

    def steps(self, key: str) -> int:
        """Of a job's loop."""
        return loop_steps(self.jobs[key].identity.get("hyperparameters", {}))

    def prepared(self, key: str) -> float:
        """Of all prerequisites of a job."""
        return sum(self.operations(needed) for needed in self.jobs[key].inputs.values())

    def counted(self, key: str) -> Counted:
        """Of a job, from the cache or from a few of its steps. Raises UserError if it fails."""
        job, sort = self.jobs[key], self.sort(key)
        if not self._holds(sort, key):
            with suppress(OSError, ValueError, TypeError):
                self._known[sort] = Counted(**read_json(self._path(sort)))
        if not self._holds(sort, key):
            try:
                self._note(sort, self._count(key))
            except UserError:
                raise
            except Exception as error:  # whatever a method raises
                why = f"{type(error).__name__}: {first_line(error)}"
                raise UserError(f"the operations of {job.label} cannot be counted: {why}") from error
        return self._known[sort]

    def _count(self, key: str) -> Counted:
        with suppress(Exception):  # whatever a method does with numbers that are not there
            return self.count_on(META, key)
        return self.count_on(self.device, key)

    def count_on(self, place: torch.device, key: str) -> Counted:
        """Run the first steps of a job. Raises what the method raises."""
        if place != META:
            return self._run(place, key)
        with DryRun(), meta_as(self.device.type):
            return self._run(place, key)

    def counting(self, period: int = 0, stride: int = 1) -> JobOperations:
        """Counts a job that is run for its count alone; see `repetition`."""
        return JobOperations(period, stride, cut=True)

    def _run(self, place: torch.device, key: str) -> Counted:
        return (self._build if self.jobs[key].kind == "prepare" else self._distill)(place, key)

    def _note(self, sort: str, found: Counted) -> None:
        self._known[sort] = found
        with suppress(OSError, UserError):  # it is counted again
            write_atomic(self._path(sort), json.dumps(dataclasses.asdict(found)))

    @staticmethod
    def _path(sort: str) -> Path:
        return cache_dir() / "operations" / f"{sort}.json"

    def _holds(self, sort: str, key: str) -> bool:
        return sort in self._known and self._known[sort].holds(self.steps(key))

    def sort(self, key: str) -> str:
        """A digest of what the operations of a job depend on."""
        job = self.jobs[key]
        identity = {name: value for name, value in job.identity.items() if name != "seed"}
        if job.kind == "prepare":
            places = {*ALIKE, *(["epoch"] if "before" in job.inputs else [])}
            identity["values"] = {k: v for k, v in identity["values"].items() if k not in places}
        else:
            values = identity["hyperparameters"]
            identity["hyperparameters"] = {
                k: v for k, v in values.items() if k not in step_counts(values)[:1]
            }
        content = [COUNT_SCHEMA, job.kind, identity, sorted(job.inputs), job_sources(job)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _build(self, place: torch.device, key: str) -> Counted:
        job, found = self.jobs[key], self.counting()
        block = block_class(job.identity["block"])(**job.identity["values"])
        problem = self._problem(place, job)
        with found.running():
            self._made[place, self.sort(key)] = block.build(problem)
        return Counted(found.sum, 0.0, 1)

    def _distill(self, place: torch.device, key: str) -> Counted:
        job = self.jobs[key]
        values = job.identity["hyperparameters"]
        method, found = build_method(job.identity["method"], values), self.counting(*repetition(values))
        problem = dataclasses.replace(self._problem(place, job), loop=Loop(operations=found))
        with found.running():
            distilled = method.distill(problem)
        if place == META:
            self.sets[self.sort(key)] = distilled
        steps = loop_steps(values)
        return Counted(found.fixed, found.step * found.total / steps, steps)

    def _problem(self, place: torch.device, job: Job) -> Problem:
        prepared = {role: self._tensors(place, key) for role, key in job.inputs.items()}
        whitening = job.inputs.get("whitening")
        kind = None if whitening is None else self.jobs[whitening].identity["values"]["kind"]
        return make_problem(job.identity, self.data, self._split(place), prepared, kind)

    def _tensors(self, place: torch.device, key: str) -> dict[str, Tensor]:
        sort = self.sort(key)
        if (place, sort) not in self._made:
            self._note(sort, self._build(place, key))
        return self._like(place, sort, int(key, 16) % STAND_INS)


def like(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Tensors of the same shapes with nearly the same values; another number, others."""
    generator = torch.Generator().manual_seed(number)

    def noisy(tensor: Tensor) -> Tensor:
        if tensor.is_meta or not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        return tensor + 0.01 * tensor.abs().mean() * noise

    return {name: noisy(tensor) for name, tensor in tensors.items()}


class ComputeBudget:
    """Gives each distillation of a sweep as many steps as its budget pays for.

    Prerequisites are paid first. What has no steps, as random images and coresets, stays as it is.

    Args:
        limit: floating-point operations of a distillation with its prerequisites.
        datasets: of the sweep, by label.
        device: where jobs are run to be counted.
        tell: hears the label of what is counted.
    """

    def __init__(
        self,
        limit: float,
        datasets: Mapping[str, Dataset],
        device: torch.device,
        tell: Callable[[str], None] = lambda label: None,
    ) -> None:
        self.limit, self._tell = limit, tell
        # by key, for people: a distillation and how many steps it takes, or why it takes none
        self.steps: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._counters = {data.fingerprint: JobCounter(data, device) for data in datasets.values()}

    def fit(self, entry: MethodEntry, method: Method, cell: Cell) -> Method | None:
        """The method with the steps that the budget pays for; None where it does not pay for one.

        Raises:
            UserError: the sweep says how many steps it takes, or its operations cannot be counted.
        """
        counter = self._counters[cell.data.fingerprint]
        first = dataclasses.replace(cell, seed=0)  # all seeds get the same steps
        job = plan_distillation(counter.jobs, entry.name, method, first)
        self._tell(job.label)
        counted, values = counter.counted(job.key), vars(method)
        if not counted.step:
            return method
        label = job.label.removesuffix(" seed 0")
        names = step_counts(values)
        if not names:
            self.left_out[job.key] = f"{label} names no steps or iterations, which a budget could set"
            return None
        if names[0] in entry.values:
            key = f"methods.{entry.name}.{names[0]}"
            raise UserError(f"{key}: budget.compute sets it, so leave one of the two out")
        before = counter.prepared(job.key) + counted.fixed
        one = counted.step * math.prod(values[name] for name in names[1:])
        if (n := math.floor((self.limit - before) / one)) < 1:
            spent = f"{flop(before)} before its first step, and " if before else ""
            self.left_out[job.key] = f"{label} takes {spent}{flop(one)} for each of its {names[0]}"
            return None
        self.steps[job.key] = f"{label} {n:,} {names[0]}"
        return dataclasses.replace(method, **{names[0]: n})

    def operations(self, jobs: Mapping[str, Job]) -> dict[str, float]:
        """Of the distillations and their prerequisites, by key."""
        found: dict[str, float] = {}
        for counter in self._counters.values():
            counter.jobs.update(jobs)
        for job in (job for job in jobs.values() if job.kind == "distill"):
            counter = self._counters[job.identity["dataset"]]
            found |= {key: counter.operations(key) for key in (job.key, *job.inputs.values())}
        return found

    def summary(self) -> list[str]:
        """A line on the steps, and one on each method that is left out."""
        limit = flop(self.limit)
        lines = [f"{limit} pay for {', '.join(self.steps.values())}"] if self.steps else []
        return [*lines, *(f"left out of {limit}: {why}" for why in self.left_out.values())]
