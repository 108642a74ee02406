"""The prerequisites of a method in bounded time: built, read, or replaced by similar tensors."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.core import timing
from bench.core.method import Problem
from bench.core.precision import computing
from bench.core.registry import block_class
from bench.core.timing import Operation
from bench.data.dataset import Dataset, Split
from bench.execution.budget import STAND_INS, like
from bench.execution.jobs import job_precision, make_problem
from bench.execution.store import WEIGHTS, Store
from bench.planning.graph import Job
from bench.tools.profile.operation_timer import CutTraining, OperationTimer


@dataclass
class PreparedTensors:
    """Tensors by the key of their job, and what making them took and would take in full."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    seconds: float = 0.0  # measured
    projected_s: float = 0.0  # of all jobs, in full
    peak_bytes: int = 0
    spent: dict[Operation, int] = field(default_factory=dict)  # nanoseconds
    built: int = 0
    cut: int = 0  # of the built ones, those whose training skipped steps
    read: int = 0
    stood_in: int = 0


def projected_seconds(seconds: float, loops: Sequence[CutTraining]) -> float:
    """The seconds that something would have taken if its training loops had skipped no steps.

    A step that was left out costs the mean of those that its own loop took: pieces are no training steps.
    """
    return seconds + sum((loop.asked - loop.taken) * loop.seconds / loop.taken for loop in loops)


class PrerequisiteMaker:
    """Makes the prerequisites of one data set on one device."""

    def __init__(self, data: Dataset, device: torch.device, cpus: int, stores: Iterable[Store] = ()) -> None:
        self.data, self.device, self.cpus, self.stores = data, device, cpus, list(stores)
        self.split: Split = data.train.to(device)

    def problem(self, job: Job, jobs: Mapping[str, Job], tensors: Mapping[str, dict[str, Tensor]]) -> Problem:
        """The problem that a prerequisite or a method is given."""
        prepared = {role: tensors[key] for role, key in job.inputs.items()}
        whitening = job.inputs.get("whitening")
        kind = None if whitening is None else jobs[whitening].identity["values"]["kind"]
        return make_problem(job.identity, self.data, self.split, prepared, kind)

    def prepare(self, jobs: Mapping[str, Job], seconds: float) -> PreparedTensors:
        """Make the prerequisites among the jobs, in their order.

        Those that a store has from the same kind of device are read. One of each sort is always built, and
        more while there is time; the rest get the tensors of one of the same sort, with some noise.

        Args:
            jobs: the plan, by key.
            seconds: for building.

        Returns:
            The tensors and their cost.
        """
        made, begin = PreparedTensors(), time.perf_counter()
        known: dict[tuple[str, ...], list[float]] = {}  # projected seconds, by sort
        patterns: dict[tuple[str, ...], Callable[[int], dict[str, Tensor]]] = {}
        for job in jobs.values():
            if job.kind != "prepare":
                continue
            sort = (job.identity["block"], *sorted(job.inputs))
            left = seconds - (time.perf_counter() - begin)
            if found := self._stored(job.key):
                made.tensors[job.key], cost = found
                made.read += 1
            elif left > 0 or sort not in patterns:
                made.tensors[job.key], cost = self._build(job, jobs, made, max(left, 0))
                patterns[sort] = functools.cache(functools.partial(like, made.tensors[job.key]))
            else:
                made.tensors[job.key] = patterns[sort](made.stood_in % STAND_INS)
                made.stood_in += 1
                cost = fmean(known[sort])
            known.setdefault(sort, []).append(cost)
            made.projected_s += cost
        made.seconds = time.perf_counter() - begin
        return made

    def _stored(self, key: str) -> tuple[dict[str, Tensor], float] | None:
        """The tensors and their seconds on the same kind of device; None if no store has them."""
        for store in self.stores:
            if store.state("prepare", key) is None:
                cost: dict[str, Any] = store.meta(key)["cost"]
                if (cost["device"], cost["cpus"]) == (timing.device_name(self.device), self.cpus):
                    return load_file(store.artifact(key) / WEIGHTS), cost["prepare_s"]
        return None

    def _build(
        self, job: Job, jobs: Mapping[str, Job], made: PreparedTensors, seconds: float
    ) -> tuple[dict[str, Tensor], float]:
        problem = self.problem(job, jobs, made.tensors)
        timer = OperationTimer(self.device, seconds)
        precise = computing(job_precision(job))
        with precise, timing.measure(self.device) as measured, timer.running():
            tensors = block_class(job.identity["block"])(**job.identity["values"]).build(problem)
        made.built += 1
        made.cut += any(loop.taken < loop.asked for loop in timer.loops)
        made.peak_bytes = max(made.peak_bytes, measured.peak_bytes)
        for operation, spent in timer.spent.items():
            made.spent[operation] = made.spent.get(operation, 0) + spent
        kept = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        return kept, projected_seconds(measured.seconds, timer.loops)
