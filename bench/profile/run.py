"""Run a method for a bounded time and see where it goes."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from pydantic import ValidationError

from bench import timing
from bench.artifact import DistilledDataset
from bench.config import Sweep, build_method
from bench.data import Dataset
from bench.errors import UserError
from bench.exam import Setting, examine
from bench.foreign import Source
from bench.job import versions, warm_up
from bench.method import IPC, Method
from bench.plan import Job, check, plan
from bench.preprocess import NORMALISE
from bench.profile.ledger import Ledger
from bench.profile.prepare import Maker, Prepared, whole
from bench.profile.result import Phase, Profile, Step
from bench.profile.scaling import Axis, Point, measure, points
from bench.profile.walk import Walk
from bench.profile.watch import matrix_rate
from bench.protocols import Protocol, load_protocol
from bench.session import check_resources
from bench.store import Store
from bench.strict import first_complaint

# of the seconds of a profile; the scaling shares its part among the points
PREPARE, DISTILL, EVALUATE, SCALING = 0.2, 0.4, 0.1, 0.3
MAKING, POINTS = 0.02, 6  # for the prerequisites of a point
RUNS = 5  # of a distillation without steps, which is over at once


@dataclass(frozen=True)
class Request:
    method: str
    values: Mapping[str, Any]  # hyper-parameters in the place of the preset's
    dataset: str
    ipc: int
    architecture: str
    protocol: str
    seconds: float
    cpus: int
    gpus: float


@dataclass(frozen=True)
class Asked:
    """A request that has been checked: the plan that `run` would follow."""

    source: Source
    sweep: Sweep
    protocol: Protocol

    @classmethod
    def check(cls, request: Request) -> "Asked":
        """Raises UserError."""
        if not request.seconds > 0:
            raise UserError(f"--seconds {request.seconds:g}: must be above 0")
        if "name" in request.values:
            other = request.values["name"]
            raise UserError(f"--set name={other}: the method is METHOD, {request.method}")
        source = Source.open(request.dataset)
        content = {
            "name": "profile",
            "datasets": [source.spec],
            "methods": [{"name": request.method, **request.values}],
            "ipc": [request.ipc],
            "distill": {"architectures": [request.architecture], "seeds": [0]},
            "evaluate": {
                "architectures": [request.architecture],
                "students": 1,
                "protocol": request.protocol,
            },
            "resources": {"cpus": request.cpus, "gpus": request.gpus},
        }
        try:
            sweep = Sweep.model_validate(content)
        except ValidationError as error:
            raise UserError(first_complaint(error).replace(".0:", ":", 1)) from None  # a list of one
        check_resources(sweep.resources)
        check(sweep, {source.spec.label: source.data})
        return cls(source, sweep, load_protocol(request.protocol, taught=False))

    def jobs(self, data: Dataset, **changes: Any) -> dict[str, Job]:
        """The plan for these data; `changes` of the sweep. Raises UserError for what does not fit."""
        sweep = self.sweep.model_copy(update=changes)
        check(sweep, {self.source.spec.label: data})
        return plan(sweep, {self.source.spec.label: data}, [self.protocol])


@dataclass(frozen=True)
class Distilled:
    method: Method
    walk: Walk
    result: DistilledDataset
    ledger: Ledger  # of all that was no step
    seconds: float
    peak_bytes: int


class Profiler:
    """One profile; `tell` hears what is being done."""

    def __init__(
        self, request: Request, asked: Asked, stores: list[Store], tell: Callable[[str], None]
    ) -> None:
        self.request, self.asked, self.tell = request, asked, tell
        self.data, self.sweep = asked.source.data, asked.sweep
        self.device = torch.device("cuda:0" if request.gpus else "cpu")
        torch.set_num_threads(request.cpus)
        if 0 < request.gpus < 1:
            torch.cuda.set_per_process_memory_fraction(request.gpus, self.device)
        self.maker = Maker(self.data, self.device, request.cpus, stores)
        self.jobs = asked.jobs(self.data)
        self.job = next(job for job in self.jobs.values() if job.kind == "distill")

    def run(self, trace: Path) -> Profile:
        """All phases, then the other sizes; the trace of a few steps goes to a file."""
        warm_up(self.device)
        rate = matrix_rate(self.device)
        self.tell("prerequisites")
        made = self.maker.prepare(self.jobs, PREPARE * self.request.seconds)
        self.tell("steps")
        distilled = self._distill(self.maker, self.jobs, made, DISTILL * self.request.seconds, trace)
        self.tell("evaluation")
        evaluated = self._evaluate(distilled.result)
        phases = (_prepared(made), _distilled(distilled), evaluated)
        scaling = tuple(self._scale(made, distilled))
        return Profile(
            method=self.request.method,
            hyperparameters=self.job.identity["hyperparameters"],
            dataset=self.data.label,
            image_shape=self.data.image_shape,
            n_classes=self.data.n_classes,
            ipc=self.job.identity["ipc"],
            architecture=self.sweep.distill.architectures[0].label,
            protocol=self.asked.protocol.name,
            device=timing.device_name(self.device),
            cpus=self.request.cpus,
            gpus=self.request.gpus,
            versions=versions(),
            phases=phases,
            step=_step(distilled.walk),
            # the better of two: others may have used the machine meanwhile
            matrix_rate=max(rate, matrix_rate(self.device)),
            scaling=scaling,
        )

    def _distill(
        self, maker: Maker, jobs: Mapping[str, Job], made: Prepared, seconds: float, trace: Path | None
    ) -> Distilled:
        job = next(job for job in jobs.values() if job.kind == "distill")
        method = build_method(job.identity["method"], job.identity["hyperparameters"])
        problem = maker.problem(job, jobs, made.tensors)
        ledger = Ledger(self.device)
        with timing.measure(self.device) as measured:
            walk = Walk(self.device, seconds, trace)
            try:
                with ledger.running():
                    result = method.distill(dataclasses.replace(problem, journal=walk))
            finally:
                walk.close()
        peak = walk.peak_bytes or measured.peak_bytes
        return Distilled(method, walk, result, ledger, measured.seconds, peak)

    def _evaluate(self, distilled: DistilledDataset) -> Phase:
        (student,) = self.sweep.evaluate.architectures
        setting = Setting(self.data, student, self.asked.protocol, 1, 0, self.device)
        ledger = Ledger(self.device, EVALUATE * self.request.seconds)
        with timing.measure(self.device) as measured, ledger.running("evaluation"):
            examine(distilled, setting)
        taken, asked = (sum(getattr(loop, name) for loop in ledger.loops) for name in ("taken", "asked"))
        projected = whole(measured.seconds, ledger.loops)
        note = f"one student, {taken:,} of {asked:,} steps of {self.asked.protocol.name}"
        return Phase("evaluate", measured.seconds, projected, measured.peak_bytes, ledger.spent, note)

    def _scale(self, made: Prepared, distilled: Distilled) -> list[Axis]:
        """The same hyper-parameters at other sizes, on normalised images."""
        cost = self._cost(distilled, self.maker, self.jobs, made)
        needed = 40 * cost  # a few steps at each point, the largest of which takes four times as long or more
        found = []
        for axis in points(self.data, self.request.ipc, IPC in distilled.method.uses):
            self.tell(f"other {axis.name}")
            if needed > self.request.seconds:
                note = f"not measured, for want of time: --seconds {math.ceil(needed)} would do"
                found.append(Axis(axis.name, (axis.here,), (cost,), note=note))
            else:
                found.append(measure(axis, cost, self._cost_at))
        return found

    def _cost_at(self, point: Point) -> float:
        values = {**self.job.identity["hyperparameters"], "preprocess": NORMALISE}
        entry = self.sweep.methods[0].model_copy(update={"values": values})
        jobs = self.asked.jobs(point.data, ipc=(point.ipc,), methods=(entry,))
        same = point.data is self.data
        maker = Maker(point.data, self.device, self.request.cpus, self.maker.stores if same else [])
        made = maker.prepare(jobs, MAKING * self.request.seconds / POINTS)
        seconds = (SCALING - MAKING) * self.request.seconds / POINTS
        return self._cost(self._distill(maker, jobs, made, seconds, None), maker, jobs, made)

    def _cost(self, distilled: Distilled, maker: Maker, jobs: Mapping[str, Job], made: Prepared) -> float:
        """Seconds of a step; of the distillation where there are none: the median of a few."""
        if distilled.walk.timed:
            return distilled.walk.step_s
        costs = [distilled.seconds]
        while len(costs) < RUNS and sum(costs) < SCALING * self.request.seconds / POINTS:
            costs.append(self._distill(maker, jobs, made, 0, None).seconds)
        return median(costs)


def _prepared(made: Prepared) -> Phase:
    parts = {
        f"built ({made.cut:,} with fewer steps)": made.built,
        "read from other results, with the seconds that they took": made.read,
        "stood in for and projected": made.stood_in,
    }
    notes = [f"{n:,} {how}" for how, n in parts.items() if n]
    note = f"prerequisites: {', '.join(notes)}" if notes else "no prerequisites"
    return Phase("prepare", made.seconds, made.projected_s, made.peak_bytes, made.spent, note)


def _distilled(distilled: Distilled) -> Phase:
    walk, seconds, peak = distilled.walk, distilled.seconds, distilled.peak_bytes
    if not walk.timed:
        return Phase("distill", seconds, seconds, peak, distilled.ledger.spent, "no steps: run whole")
    note = (
        f"{len(walk.timed):,} of {walk.total:,} steps timed, {len(walk.watched):,} more watched by operation"
    )
    return Phase("distill", seconds, walk.projected_s, peak, walk.ledger.spent, note)


def _step(walk: Walk) -> Step | None:
    if walk.total is None or not walk.timed:
        return None
    return Step(
        total=walk.total,
        timed=len(walk.timed),
        median_s=walk.step_s,
        mean_s=fmean(walk.timed),
        flops=fmean(walk.flops) if walk.flops else None,
        watched_s=fmean(walk.watched) if walk.watched else None,
        joules=None if walk.joules is None else walk.joules / len(walk.timed),
    )
