"""Run a method for a bounded time and measure what it spends it on."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from pydantic import ValidationError

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import IPC, Method
from bench.core.precision import computing
from bench.core.preprocess import NORMALISE
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting, train_and_score
from bench.execution.jobs import job_precision
from bench.execution.machine import check_resources
from bench.execution.provenance import versions
from bench.execution.store import Store
from bench.execution.warm_up import warm_up
from bench.interop.external import NamedDataset
from bench.planning.checks import check_data
from bench.planning.graph import Job, plan_sweep
from bench.planning.protocols import Protocol, load_protocol
from bench.planning.sweep import Sweep, build_method
from bench.planning.yaml_schema import describe_faults, list_faults
from bench.tools.profile.counters import matrix_rate
from bench.tools.profile.operation_timer import OperationTimer
from bench.tools.profile.prepare import PreparedTensors, PrerequisiteMaker, projected_seconds
from bench.tools.profile.profiled_loop import ProfiledLoop
from bench.tools.profile.result import Profile, ProfiledPhase, ProfiledStep
from bench.tools.profile.scaling import ScalingAxis, ScalingPoint, measure_axis, scaling_points

# fractions of the seconds of a profile; the scaling divides its part among the points
PREPARE, DISTILL, EVALUATE, SCALING = 0.2, 0.4, 0.1, 0.3
MAKING, POINTS = 0.02, 6  # MAKING: for the prerequisites of a point
RUNS = 5  # of a distillation without steps, which is short


@dataclass(frozen=True)
class ProfileRequest:
    """What the command line asked for."""

    method: str
    values: Mapping[str, Any]  # hyper-parameters that replace the preset's
    dataset: str
    ipc: int
    architecture: str
    protocol: str
    seconds: float
    cpus: int
    gpus: float


@dataclass(frozen=True)
class CheckedRequest:
    """A request that has been checked: the plan that `run` would follow."""

    source: NamedDataset
    sweep: Sweep
    protocol: Protocol

    @classmethod
    def check(cls, request: ProfileRequest) -> "CheckedRequest":
        """Check a request. Raises UserError if it is invalid."""
        if not request.seconds > 0:
            raise UserError(f"--seconds {request.seconds:g}: must be above 0")
        if "name" in request.values:
            other = request.values["name"]
            raise UserError(f"--set name={other}: the method is METHOD, {request.method}")
        source = NamedDataset.open(request.dataset)
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
            faults = [fault.replace(".0:", ":", 1) for fault in list_faults(error)]  # of lists of one
            raise UserError(describe_faults(faults)) from None
        check_resources(sweep.resources)
        check_data(sweep, {source.spec.label: source.data})
        return cls(source, sweep, load_protocol(request.protocol, taught=False))

    def jobs(self, data: Dataset, **changes: Any) -> dict[str, Job]:
        """The plan for this data with some changes of the sweep. Raises UserError if they do not fit."""
        sweep = self.sweep.model_copy(update=changes)
        check_data(sweep, {self.source.spec.label: data})
        return plan_sweep(sweep, {self.source.spec.label: data}, [self.protocol])


@dataclass(frozen=True)
class ProfiledDistillation:
    """A distillation that was stopped early, and what was measured."""

    method: Method
    loop: ProfiledLoop
    result: DistilledDataset
    timer: OperationTimer  # of everything outside the steps
    seconds: float
    peak_bytes: int


class Profiler:
    """Measures one profile; `tell` is called with the name of each part as it starts."""

    def __init__(
        self, request: ProfileRequest, asked: CheckedRequest, stores: list[Store], tell: Callable[[str], None]
    ) -> None:
        self.request, self.asked, self.tell = request, asked, tell
        self.data, self.sweep = asked.source.data, asked.sweep
        self.device = torch.device("cuda:0" if request.gpus else "cpu")
        torch.set_num_threads(request.cpus)
        if 0 < request.gpus < 1:
            torch.cuda.set_per_process_memory_fraction(request.gpus, self.device)
        self.maker = PrerequisiteMaker(self.data, self.device, request.cpus, stores)
        self.jobs = asked.jobs(self.data)
        self.job = next(job for job in self.jobs.values() if job.kind == "distill")

    def run(self, trace: Path) -> Profile:
        """Measure all phases and then the other sizes; write a trace of a few steps to a file."""
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
            step=_step(distilled.loop),
            # the better of two, as other processes may have used the machine
            matrix_rate=max(rate, matrix_rate(self.device)),
            scaling=scaling,
        )

    def _distill(
        self,
        maker: PrerequisiteMaker,
        jobs: Mapping[str, Job],
        made: PreparedTensors,
        seconds: float,
        trace: Path | None,
    ) -> ProfiledDistillation:
        job = next(job for job in jobs.values() if job.kind == "distill")
        method = build_method(job.identity["method"], job.identity["hyperparameters"])
        problem = maker.problem(job, jobs, made.tensors)
        timer = OperationTimer(self.device)
        with computing(job_precision(job)), timing.measure(self.device) as measured:
            loop = ProfiledLoop(self.device, seconds, trace)
            try:
                with timer.running():
                    result = method.distill(dataclasses.replace(problem, loop=loop))
            finally:
                loop.close()
        peak = loop.peak_bytes or measured.peak_bytes
        return ProfiledDistillation(method, loop, result, timer, measured.seconds, peak)

    def _evaluate(self, distilled: DistilledDataset) -> ProfiledPhase:
        (student,) = self.sweep.evaluate.architectures
        job = next(job for job in self.jobs.values() if job.kind == "evaluate")
        protocol = Protocol(about="", **job.identity["protocol"])
        setting = EvaluationSetting(self.data, student, protocol, 1, 0, self.device)
        timer = OperationTimer(self.device, EVALUATE * self.request.seconds)
        with timing.measure(self.device) as measured, timer.running("evaluation"):
            train_and_score(distilled, setting)
        taken, asked = (sum(getattr(cut, name) for cut in timer.loops) for name in ("taken", "asked"))
        projected = projected_seconds(measured.seconds, timer.loops)
        note = f"one student, {taken:,} of {asked:,} steps of {self.asked.protocol.name}"
        return ProfiledPhase("evaluate", measured.seconds, projected, measured.peak_bytes, timer.spent, note)

    def _scale(self, made: PreparedTensors, distilled: ProfiledDistillation) -> list[ScalingAxis]:
        """Measure the same hyper-parameters at other sizes, on normalised images."""
        cost = self._cost(distilled, self.maker, self.jobs, made)
        needed = 40 * cost  # a few steps at each point; the largest takes at least four times as long
        found = []
        for axis in scaling_points(self.data, self.request.ipc, IPC in distilled.method.depends_on):
            self.tell(f"other {axis.name}")
            if needed > self.request.seconds:
                note = f"not measured, for want of time: --seconds {math.ceil(needed)} would do"
                found.append(ScalingAxis(axis.name, (axis.here,), (cost,), note=note))
            else:
                found.append(measure_axis(axis, cost, self._cost_at))
        return found

    def _cost_at(self, point: ScalingPoint) -> float:
        values = {**self.job.identity["hyperparameters"], "preprocess": NORMALISE}
        entry = self.sweep.methods[0].model_copy(update={"values": values})
        jobs = self.asked.jobs(point.data, ipc=(point.ipc,), methods=(entry,))
        same = point.data is self.data
        maker = PrerequisiteMaker(
            point.data, self.device, self.request.cpus, self.maker.stores if same else []
        )
        made = maker.prepare(jobs, MAKING * self.request.seconds / POINTS)
        seconds = (SCALING - MAKING) * self.request.seconds / POINTS
        return self._cost(self._distill(maker, jobs, made, seconds, None), maker, jobs, made)

    def _cost(
        self,
        distilled: ProfiledDistillation,
        maker: PrerequisiteMaker,
        jobs: Mapping[str, Job],
        made: PreparedTensors,
    ) -> float:
        """Seconds of a step; without steps, of the distillation, as the median of a few runs."""
        if distilled.loop.timed:
            return distilled.loop.step_s
        costs = [distilled.seconds]
        while len(costs) < RUNS and sum(costs) < SCALING * self.request.seconds / POINTS:
            costs.append(self._distill(maker, jobs, made, 0, None).seconds)
        return median(costs)


def _prepared(made: PreparedTensors) -> ProfiledPhase:
    parts = {
        f"built ({made.cut:,} with fewer steps)": made.built,
        "read from other results, with the seconds that they took": made.read,
        "stood in for and projected": made.stood_in,
    }
    notes = [f"{n:,} {how}" for how, n in parts.items() if n]
    note = f"prerequisites: {', '.join(notes)}" if notes else "no prerequisites"
    return ProfiledPhase("prepare", made.seconds, made.projected_s, made.peak_bytes, made.spent, note)


def _distilled(distilled: ProfiledDistillation) -> ProfiledPhase:
    loop, seconds, peak = distilled.loop, distilled.seconds, distilled.peak_bytes
    if not loop.timed:
        return ProfiledPhase("distill", seconds, seconds, peak, distilled.timer.spent, "no steps: run whole")
    note = (
        f"{len(loop.timed):,} of {loop.total:,} steps timed, {len(loop.watched):,} more watched by operation"
    )
    return ProfiledPhase("distill", seconds, loop.projected_s, peak, loop.timer.spent, note)


def _step(loop: ProfiledLoop) -> ProfiledStep | None:
    if loop.total is None or not loop.timed:
        return None
    return ProfiledStep(
        total=loop.total,
        timed=len(loop.timed),
        median_s=loop.step_s,
        mean_s=fmean(loop.timed),
        flops=fmean(loop.flops) if loop.flops else None,
        watched_s=fmean(loop.watched) if loop.watched else None,
        joules=None if loop.joules is None else loop.joules / len(loop.timed),
    )
