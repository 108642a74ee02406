"""Run a method for a bounded time and see where it goes."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
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
from bench.profile import scaling
from bench.profile.ledger import Ledger
from bench.profile.prepare import Maker, Prepared, whole
from bench.profile.result import Phase, Profile, Step
from bench.profile.scaling import Axis, Point
from bench.profile.walk import Walk
from bench.profile.watch import matrix_rate
from bench.protocols import Protocol, load_protocol
from bench.session import check_resources
from bench.store import Store
from bench.strict import first_complaint

# of the seconds of a profile; the scaling shares its part among the points
PREPARE, DISTILL, EVALUATE, SCALING = 0.2, 0.4, 0.1, 0.3
MAKING, POINTS = 0.02, 6  # for the prerequisites of a point


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
            raise UserError(first_complaint(error)) from None
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
        self.tell("prerequisites")
        made = self.maker.prepare(self.jobs, PREPARE * self.request.seconds)
        self.tell("steps")
        distilled = self._distill(self.maker, self.jobs, made, DISTILL * self.request.seconds, trace)
        self.tell("evaluation")
        evaluated = self._evaluate(distilled.result)
        self.tell("matrix products")
        rate = matrix_rate(self.device)
        phases = (_prepared(made), _distilled(distilled), evaluated)
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
            matrix_rate=rate,
            scaling=tuple(self._scale(distilled)),
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

    def _scale(self, distilled: Distilled) -> list[Axis]:
        """The same hyper-parameters at other sizes, on normalised images."""
        uses_ipc, ipc = IPC in distilled.method.uses, self.request.ipc
        known = {
            scaling.IPC: ipc,
            scaling.CLASSES: self.data.n_classes,
            scaling.SIDE: self.data.image_shape[1],
        }
        cost = _cost(distilled)
        needed = 40 * cost  # a few steps at each point, the largest of which takes four times as long or more
        found = []
        for name, choices in scaling.points(self.data, ipc, uses_ipc).items():
            self.tell(f"other {name}")
            if not choices:
                found.append(Axis(name, (), (), note="the method has no budget"))
            elif needed > self.request.seconds:
                note = f"not measured, for want of time: --seconds {needed:.0f} would do"
                found.append(Axis(name, (known[name],), (cost,), note=note))
            else:
                found.append(scaling.measure(name, choices, (known[name], cost), self._cost_at))
        return found

    def _cost_at(self, point: Point) -> float:
        values = {**self.job.identity["hyperparameters"], "preprocess": NORMALISE}
        entry = self.sweep.methods[0].model_copy(update={"values": values})
        jobs = self.asked.jobs(point.data, ipc=(point.ipc,), methods=(entry,))
        same = point.data is self.data
        maker = Maker(point.data, self.device, self.request.cpus, self.maker.stores if same else [])
        made = maker.prepare(jobs, MAKING * self.request.seconds / POINTS)
        seconds = (SCALING - MAKING) * self.request.seconds / POINTS
        return _cost(self._distill(maker, jobs, made, seconds, None))


def _cost(distilled: Distilled) -> float:
    """Seconds of a step; of the distillation where there are none."""
    return distilled.walk.step_s if distilled.walk.timed else distilled.seconds


def _prepared(made: Prepared) -> Phase:
    total = made.built + made.read + made.stood_in
    notes = [f"{total:,} prerequisites"] if total else ["none"]
    notes += [f"{made.built:,} built ({made.cut:,} with fewer steps)"] if made.built else []
    notes += [f"{made.read:,} read from results, with the seconds recorded there"] if made.read else []
    notes += [f"{made.stood_in:,} stood in for and projected"] if made.stood_in else []
    return Phase("prepare", made.seconds, made.projected_s, made.peak_bytes, made.spent, ", ".join(notes))


def _distilled(distilled: Distilled) -> Phase:
    walk, seconds, peak = distilled.walk, distilled.seconds, distilled.peak_bytes
    if walk.total is None:
        return Phase("distill", seconds, seconds, peak, distilled.ledger.spent, "no steps: run whole")
    note = (
        f"{len(walk.timed):,} of {walk.total:,} steps timed, {len(walk.watched):,} more watched by operation"
    )
    return Phase("distill", seconds, walk.projected_s, peak, walk.ledger.spent, note)


def _step(walk: Walk) -> Step | None:
    if walk.total is None:
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
