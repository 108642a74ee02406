"""What the jobs of a plan will cost, from what jobs of the same group have cost."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from bench.core.loop import SNAPSHOT_FRACTIONS
from bench.core.words import duration
from bench.planning.graph import Job
from bench.planning.protocols import Protocol
from bench.planning.sweep import BESIDE
from bench.records.schema import Record

# hyper-parameters that say how many steps a loop takes: the first of these sets that is there
STEP_COUNTS = (("steps",), ("iterations", "inner_steps"), ("epochs",))
SETS = 1 + len(SNAPSHOT_FRACTIONS)  # that an evaluation with snapshots scores
Group = tuple[Any, ...]


class Source(IntEnum):
    """Where seconds come from; of several, the first one counts."""

    RUN = 0  # a job that has finished in this run
    FINISHED = 1  # an earlier one
    RUNNING = 2  # one that runs now, as far as it tells
    SHARED = 3  # a record holds the sum of all prerequisites: an equal part of it
    MEASURED = 4  # a few steps
    PROFILE = 5  # of `ddbench profile`


@dataclass(frozen=True)
class Sort:
    """What a job's seconds are compared by: those of its first group that is known, times its size."""

    groups: tuple[Group, ...]
    size: float  # steps, or students trained


@dataclass(frozen=True)
class Estimate:
    """Seconds; `at_least` while some jobs are like none that has been seen."""

    seconds: float
    at_least: bool

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'about'} {duration(self.seconds)}"


def step_counts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The hyper-parameters whose product says how many steps a loop takes; empty where none does."""
    for names in STEP_COUNTS:
        if all(isinstance(values.get(name), int) for name in names):
            return names
    return ()


def loop_steps(values: Mapping[str, Any]) -> int:
    """How many steps these hyper-parameters ask for; 1 where nothing says."""
    steps = 1
    for name in step_counts(values):
        steps *= values[name]
    return steps


def repetition(values: Mapping[str, Any]) -> tuple[int, int]:
    """After how many steps a loop repeats itself, and how soon it does but for the first and last of these.

    DC, DSA and IDC take a new network after `inner_steps`; DREAM new real images after `every`. (0, 0) where
    nothing says.
    """
    names = step_counts(values)
    network = values[names[1]] if len(names) > 1 else 1
    every = values["every"] if isinstance(values.get("every"), int) else 1
    if every > network or network % every:
        return math.lcm(every, network), math.lcm(every, network)
    return (network, every) if len(names) > 1 or every > 1 else (0, 0)


def _but_steps(values: Mapping[str, Any]) -> str:
    names = step_counts(values)
    return json.dumps({k: v for k, v in values.items() if k not in names}, sort_keys=True)


def prepare_sort(identity: Mapping[str, Any], roles: Iterable[str]) -> Sort:
    """Of a prerequisite: those with the same values, else of the same kind."""
    values = identity["values"]
    place = tuple(identity.get(axis) for axis in ("dataset", "architecture", "ipc", *BESIDE))
    kind = ("prepare", identity["block"], *sorted(roles), *place)
    networks = values.get("size", 1)  # of a block of experts
    return Sort(((*kind, _but_steps(values)), kind), loop_steps(values) * networks)


def distill_sort(identity: Mapping[str, Any]) -> Sort:
    """Of a distillation: those with the same hyper-parameters but for the steps, else of the same method."""
    values = identity["hyperparameters"]
    place = tuple(identity.get(axis) for axis in ("method", "dataset", "architecture", "ipc", *BESIDE))
    return Sort((("distill", *place, _but_steps(values)), ("distill", *place)), loop_steps(values))


def evaluate_sort(identity: Mapping[str, Any], method: Mapping[str, Any], snapshots: bool) -> Sort:
    """Of an evaluation.

    Args:
        identity: its own architecture, protocol (name, version) and students.
        method: identity of the distillation that made the set.
        snapshots: those are scored too.
    """
    protocol = identity["protocol"]
    place = tuple(method.get(axis) for axis in ("method", "dataset", "ipc", *BESIDE))
    setting = (identity["architecture"], protocol["name"], protocol["version"], snapshots, *place)
    kind = ("evaluate", *setting)
    return Sort(((*kind, _but_steps(method["hyperparameters"])), kind), identity["students"])


def sort_of(job: Job, jobs: Mapping[str, Job]) -> Sort:
    """The sort of a job of the plan `jobs`."""
    if job.kind == "prepare":
        return prepare_sort(job.identity, job.inputs)
    if job.kind == "distill":
        return distill_sort(job.identity)
    method = jobs[job.inputs["artifact"]].identity
    if job.kind == "evaluate":
        return evaluate_sort(job.identity, method, bool(job.identity.get("snapshots")))
    trained = evaluate_sort(job.identity, method, snapshots=False)  # at each rate, with each of the labels
    trials = Protocol(about="", **job.identity["protocol"]).trials
    own = tuple(("tune", *group[1:]) for group in trained.groups)
    return Sort((*own, *trained.groups), trained.size * trials)


class Estimator:
    """The expected seconds of the jobs of a plan."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self.jobs = jobs
        self._sorts = {key: sort_of(job, jobs) for key, job in jobs.items()}
        self._members: dict[Group, str] = {}  # a job of each group
        for key, sort in self._sorts.items():
            self._members.setdefault(sort.groups[0], key)
        self._seen: dict[Group, dict[Source, tuple[float, int]]] = {}  # seconds per size: sum and count
        self._running: dict[Group, tuple[float, int]] = {}
        self._known: set[str] = set()  # jobs whose own seconds were learned

    def learn(self, sort: Sort, seconds: float, source: Source) -> None:
        """Note what a job of this sort has cost."""
        for group in sort.groups:
            sources = self._seen.setdefault(group, {})
            total, count = sources.get(source, (0.0, 0))
            sources[source] = (total + seconds / sort.size, count + 1)

    def learn_job(self, key: str, seconds: float, source: Source) -> None:
        """Note what a job of the plan has cost."""
        self.learn(self._own(key), seconds, source)

    def _own(self, key: str) -> Sort:
        """The sort of a job without what it is only compared by: rates with evaluations."""
        sort = self._sorts[key]
        kind = self.jobs[key].kind
        return Sort(tuple(group for group in sort.groups if group[0] == kind), sort.size)

    def expect(self, expected: Mapping[str, float]) -> None:
        """Note what the jobs that run now will cost, as far as they tell; replaces what was noted before."""
        self._running = {}
        for key, seconds in expected.items():
            sort = self._own(key)
            for group in sort.groups:
                total, count = self._running.get(group, (0.0, 0))
                self._running[group] = (total + seconds / sort.size, count + 1)

    def learn_artifact(self, key: str, meta: Mapping[str, Any]) -> None:
        """Note what an artifact has cost, from its meta.json; only those that others resemble count."""
        kind, cost = meta["kind"], meta["cost"]
        seconds = cost.get(f"{kind}_s")
        if key in self._known or not isinstance(seconds, float | int) or not math.isfinite(seconds):
            return
        if kind == "prepare":
            sort = prepare_sort(meta["identity"], meta["inputs"])
        elif kind == "distill" and "hyperparameters" in meta["identity"]:
            sort = distill_sort(meta["identity"])
        elif key in self._sorts:
            sort = self._own(key)
        else:
            return
        self._known.add(key)
        self.learn(sort, seconds, Source.FINISHED)

    def learn_record(self, record: Record, distilled: bool = True) -> None:
        """Note what a record says of its evaluation, and of its distillation and prerequisites if wanted."""
        cost, values = record.cost, dict(record.hyperparameters)
        method: dict[str, Any] = {
            "method": record.method,
            "dataset": record.dataset_fingerprint,
            "ipc": record.ipc,
            "architecture": record.distill_arch,
            **{name: values.pop(name, None) for name in BESIDE},
            "experts_per_seed": values.pop("experts_per_seed", None),
            "hyperparameters": values,
        }
        evaluation = {
            "architecture": record.eval_arch,
            "protocol": {"name": record.protocol, "version": record.protocol_version},
            "students": len(record.accuracies),
        }
        taken = record.metrics.snapshots
        sets = SETS if taken is None else max(1, len(taken))
        self._learn_evaluation(evaluation, method, cost.evaluate_s, sets, Source.FINISHED)
        if not distilled or record.artifact in self._known or cost.distill_s is None:
            return
        self._known.add(record.artifact)
        sort = distill_sort(method)
        self.learn(sort, cost.distill_s, Source.FINISHED)
        self._share(sort, cost.prepare_s, Source.SHARED)

    def _learn_evaluation(
        self,
        identity: Mapping[str, Any],
        method: Mapping[str, Any],
        seconds: float,
        sets: int,
        source: Source,
    ) -> None:
        """Note the seconds of students on one set; with snapshots `sets` are scored, each like the last."""
        for snapshots, times in ((False, 1), (True, sets)):
            self.learn(evaluate_sort(identity, method, snapshots), times * seconds, source)

    def learn_students(self, key: str, seconds: float, sets: int) -> None:
        """Note what was measured of the students of a planned evaluation, or choice of rates, at one rate."""
        job = self.jobs[key]
        method = self.jobs[job.inputs["artifact"]].identity
        self._learn_evaluation(job.identity, method, seconds, sets, Source.MEASURED)

    def _share(self, distilled: Sort, seconds: float, source: Source) -> None:
        """An equal part of the seconds of all prerequisites, to those of a planned job of the same group."""
        key = self._members.get(distilled.groups[0])
        needed = list(self.jobs[key].inputs.values()) if key else []
        for prerequisite in needed:
            self.learn_job(prerequisite, seconds / len(needed), source)

    def learn_profile(self, profile: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        """Note the projected phases of a profile.json.

        Args:
            profile: its content.
            labels: of the data sets, by fingerprint.
        """
        projected = {phase["name"]: phase["projected_s"] for phase in profile["phases"]}
        for key in self._members.values():
            job = self.jobs[key]
            artifact = self.jobs[job.inputs["artifact"]] if job.kind == "evaluate" else job
            if artifact.kind != "distill" or not _profiled(artifact.identity, profile, labels):
                continue
            sort = self._sorts[key]
            if job.kind == "distill":
                steps = loop_steps(profile["hyperparameters"])
                self.learn(Sort(sort.groups, steps), projected["distill"], Source.PROFILE)
                self._share(sort, projected["prepare"], Source.PROFILE)
            elif _setting(job.identity) == (profile["architecture"], profile["protocol"]):
                one = {**job.identity, "students": 1}
                self._learn_evaluation(one, artifact.identity, projected["evaluate"], SETS, Source.PROFILE)

    def seen(self, key: str) -> bool:
        """Whether seconds of a job with the same values are known."""
        return self._sorts[key].groups[0] in self._seen

    def seconds(self, key: str) -> float | None:
        """The mean of the jobs of the same group, for this job's size; None if there are none."""
        sort = self._sorts[key]
        for group in sort.groups:
            sources = dict(self._seen.get(group, {}))
            if group in self._running:
                sources[Source.RUNNING] = self._running[group]
            if sources:
                total, count = sources[min(sources)]
                return total / count * sort.size
        return None

    def sum(self, keys: Iterable[str]) -> Estimate:
        """Of all these jobs."""
        each = [self.seconds(key) for key in keys]
        return Estimate(sum(s for s in each if s is not None), None in each)


def _setting(identity: Mapping[str, Any]) -> tuple[str, str]:
    return identity["architecture"], identity["protocol"]["name"]


def _profiled(identity: Mapping[str, Any], profile: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a profile is of this distillation, or of one with other steps."""
    return (
        identity["method"] == profile["method"]
        and labels.get(identity["dataset"]) == profile["dataset"]
        and identity["ipc"] == profile["ipc"]
        and identity["architecture"] in (profile["architecture"], "any")
        and _but_steps(identity["hyperparameters"]) == _but_steps(profile["hyperparameters"])
    )
