"""Two steps of everything that a plan has no seconds for: what it will cost, before anything runs."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.core import random, timing
from bench.core.distilled import DistilledDataset
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.precision import computing
from bench.core.registry import block_class
from bench.core.timing import Operation
from bench.data.dataset import Dataset
from bench.evaluation.metrics import score_students
from bench.evaluation.scoring import EvaluationSetting
from bench.evaluation.students import train_students
from bench.execution.budget import STAND_INS, like
from bench.execution.jobs import job_precision
from bench.execution.warm_up import warm_up
from bench.planning.estimate import SETS, Estimator, Source
from bench.planning.graph import Job
from bench.planning.protocols import Protocol
from bench.planning.resources import Needs, Resources
from bench.planning.sweep import build_method
from bench.tools.profile.prepare import PrerequisiteMaker
from bench.tools.profile.profiled_loop import ProfiledLoop

SCORED = 500  # images at most, in the place of the test images


class TwoSteps:
    """Trainings take a first step, which is not timed, and their last one; what is left out is added up."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.left_out_s = device, 0.0

    def inside(self, operation: Operation) -> AbstractContextManager[None]:
        return nullcontext()

    def through(self, operation: Operation, arguments: tuple[object, ...], result: object) -> None:
        pass

    def paced(self, n: int, share: float) -> Iterator[int]:
        yield from range(min(n, 1))
        if n > 1:
            timing.synchronize(self.device)
            begin = time.perf_counter()
            yield n - 1
            timing.synchronize(self.device)
            self.left_out_s += (n - 2) * (time.perf_counter() - begin)


@dataclass
class Measurer:
    """Measures jobs of one data set and lets `costs` learn from them."""

    jobs: Mapping[str, Job]
    costs: Estimator
    data: Dataset
    needs: Needs
    others: Sequence[str] = ()  # kinds of jobs that get something else
    made: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # prerequisites by key
    evaluated: dict[tuple[object, ...], float] = field(default_factory=dict)  # seconds of alike students

    def __post_init__(self) -> None:
        self.device = torch.device("cuda:0" if self.needs.gpus else "cpu")
        torch.set_num_threads(self.needs.cpus)
        warm_up(self.device)
        self.maker = PrerequisiteMaker(self.data, self.device, self.needs.cpus)

    def prepare(self, keys: Iterable[str]) -> None:
        """Make prerequisites: of each kind the first, which prices all; the others get nearly the same."""
        kinds: dict[tuple[str, ...], dict[str, Tensor]] = {}
        for number, key in enumerate(keys):
            job = self.jobs[key]
            kind = (job.identity["block"], *sorted(job.inputs))
            if key not in self.made:
                self.made[key] = like(kinds[kind], number % STAND_INS) if kind in kinds else self._build(job)
            kinds.setdefault(kind, self.made[key])

    def _build(self, job: Job) -> dict[str, Tensor]:
        problem, two = self._problem(job), TwoSteps(self.device)
        precise = computing(job_precision(job))
        with precise, timing.measure(self.device) as measured, timing.watching(two):
            tensors = block_class(job.identity["block"])(**job.identity["values"]).build(problem)
        if job.kind not in self.others:
            self.costs.learn_job(job.key, measured.seconds + two.left_out_s, Source.MEASURED)
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def _problem(self, job: Job) -> Problem:
        return self.maker.problem(job, self.jobs, self.made)

    def distill(self, job: Job) -> tuple[DistilledDataset, int]:
        """Two timed steps, or all of it where there are none; the set, and how many an evaluation scores."""
        self.prepare(needed(job.key, self.jobs))
        problem = self._problem(job)
        loop = ProfiledLoop(self.device, 0)
        method = build_method(job.identity["method"], job.identity["hyperparameters"])
        with computing(job_precision(job)), timing.measure(self.device) as measured:
            try:
                distilled = method.distill(dataclasses.replace(problem, loop=loop))
            finally:
                loop.close()
        seconds = loop.projected_s if loop.timed else measured.seconds
        self.costs.learn_job(job.key, seconds, Source.MEASURED)
        return distilled, SETS if loop.total else 1

    def evaluate(self, job: Job, distilled: DistilledDataset, sets: int) -> None:
        """Two steps of the students of an evaluation, or of a choice of rates, on such a set."""
        self.prepare(needed(job.key, self.jobs))
        with torch.no_grad():
            images, targets = distilled.decode()
        identity = job.identity
        protocol = json.dumps(identity["protocol"])  # its rules may give others another recipe
        students = (identity["architecture"], protocol, identity["students"])
        drawn = distilled.variants() is not None
        alike = (*students, len(identity.get("curve", ())), len(images), targets.ndim, drawn)
        if alike not in self.evaluated:
            with computing(job_precision(job)):
                self.evaluated[alike] = self._students_s(job, distilled)
        self.costs.learn_students(job.key, self.evaluated[alike], sets)

    def _students_s(self, job: Job, distilled: DistilledDataset) -> float:
        identity, teacher = job.identity, job.inputs.get("teacher")
        setting = EvaluationSetting(
            data=self.data,
            architecture=parse_architecture(identity["architecture"]),
            protocol=Protocol(about="", **identity["protocol"]),
            students=identity["students"],
            seed=0,
            device=self.device,
            teacher=self.made[teacher] if teacher else None,
        )
        two = TwoSteps(self.device)
        with timing.measure(self.device) as trained, timing.watching(two):
            found = train_students(
                lambda i: setting.build(random.generator(0, "student", i, "init")),
                setting.training_set(distilled),
                [random.generator(0, "student", i, "order") for i in range(setting.students)],
            )
        (students,) = found.values()
        images, labels = self.maker.split.images[:SCORED], self.maker.split.labels[:SCORED]
        with timing.measure(self.device) as scored:
            score_students(students.logits, images, labels, distilled.preprocess, self.data.n_classes)
        scorings = (1 + len(identity.get("curve", ()))) * self.data.n_test / len(images)
        return trained.seconds + two.left_out_s + scored.seconds * scorings


def needed(key: str, jobs: Mapping[str, Job]) -> list[str]:
    """The prerequisites of a job and those of theirs, inputs first."""
    wanted = {key}
    for one in reversed(list(jobs)):
        if one in wanted:
            wanted |= {k for k in jobs[one].inputs.values() if jobs[k].kind == "prepare"}
    return [one for one in jobs if one in wanted and one != key]


def measure_plan(
    jobs: Mapping[str, Job],
    todo: Mapping[str, Job],
    costs: Estimator,
    datasets: Mapping[str, Dataset],
    resources: Resources,
    tell: Callable[[str], None],
) -> list[str]:
    """Measure what is to run and like nothing that was seen before.

    Args:
        jobs: the plan.
        todo: what of it is to run.
        costs: learns what is measured.
        datasets: by fingerprint.
        resources: what a job gets.
        tell: hears the label of what is measured.

    Returns:
        A line on each job that could not be measured.
    """
    needs = resources.of("distill")
    others = [kind for kind in ("prepare", "tune", "evaluate") if resources.of(kind) != needs]
    measurers = {name: Measurer(jobs, costs, data, needs, others) for name, data in datasets.items()}
    problems = [f"not measured: {kind}: it gets other resources than distill" for kind in others]
    for key, job in jobs.items():
        if job.kind != "distill":
            continue
        users = ((k, user) for k, user in todo.items() if user.inputs.get("artifact") == key)
        scored = [k for k, user in users if user.kind not in others]
        parts = [key, *needed(key, jobs)]
        parts = [k for k in [*parts, *scored, *(n for k in scored for n in needed(k, jobs))] if k in todo]
        if all(costs.seconds(k) is not None for k in parts) and (key not in todo or costs.seen(key)):
            continue
        tell(job.label)
        measurer = measurers[job.identity["dataset"]]
        try:
            distilled, sets = measurer.distill(job)
            for k in scored:
                measurer.evaluate(jobs[k], distilled, sets)
        except Exception as error:  # whatever a method raises; the plan is worth something without it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            problems.append(f"not measured: {job.label}: {reason}")
    return problems
