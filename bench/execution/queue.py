"""The queue of jobs that both executors work through, and how a run ended."""

import heapq
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.execution.capacity import Limit, least_seconds
from bench.execution.progress import Progress
from bench.planning.graph import JOB_KINDS, Job
from bench.planning.resources import Needs

Rank = tuple[int, float, int]


class ReadyQueue:
    """Hands out jobs whose inputs exist: what finishes a cell first, prerequisites last.

    So evaluations follow their set at once, and a table can be looked at midway; a distillation never waits
    for the prerequisites of others. Of distillations the larger budgets come first, so that the short ones
    fill the end.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        done: set[str],
        chosen: set[str],
        needs: Mapping[str, Needs] | None = None,
    ) -> None:
        """`needs`: by kind, where only some of the jobs that are ready may be asked for."""
        self.jobs = {key: job for key, job in jobs.items() if key in chosen}
        self.failed: dict[str, str] = {}
        self.users: dict[str, list[str]] = {key: [] for key in jobs}
        self.waits: dict[str, set[str]] = {}
        self._needs = needs or {}
        self._ready: dict[Needs | None, list[tuple[Rank, str]]] = {}
        self._rank = {key: i for i, key in enumerate(jobs)}
        self.open = set(self.jobs)  # neither done nor failed
        for key, job in self.jobs.items():
            self.waits[key] = {k for k in job.inputs.values() if k not in done}
            for needed in self.waits[key]:
                self.users[needed].append(key)
            if not self.waits[key]:
                self._push(key)

    def _push(self, key: str) -> None:
        """The later kinds first, of distillations the larger budgets."""
        job = self.jobs[key]
        budget = (job.identity.get("ipc") or float("inf")) if job.kind == "distill" else 0
        rank = (-JOB_KINDS.index(job.kind), -budget, self._rank[key])
        heapq.heappush(self._ready.setdefault(self._needs.get(job.kind), []), (rank, key))

    @property
    def n_ready(self) -> int:
        """How many jobs `next` would hand out at once."""
        return sum(map(len, self._ready.values()))

    def ready(self) -> dict[Needs | None, int]:
        """The same by what the jobs get, first what the best one gets."""
        heaps = sorted((heap[0], needs) for needs, heap in self._ready.items() if heap)
        return {needs: len(self._ready[needs]) for _, needs in heaps}

    def next(self, needs: Needs | None = None) -> Job | None:
        """The next job whose inputs exist, of those that get this (None: any); None when there is none."""
        places = [needs] if needs in self._ready else list(self.ready())
        heap = self._ready[places[0]] if places else []
        return self.jobs[heapq.heappop(heap)[1]] if heap else None

    def finish(self, key: str, error: str | None) -> list[str]:
        """Note the end of a job; returns the jobs that cannot run because of its failure."""
        self.open.discard(key)
        if error is None:
            for user in self.users[key]:
                self.waits[user].discard(key)
                if not self.waits[user] and user in self.open:
                    self._push(user)
            return []
        self.failed[key] = error
        lost = []
        for user in self.users[key]:
            if user in self.open:
                lost += [user, *self.finish(user, f"not run: {self.jobs[key].label} failed")]
        return lost


@dataclass
class Outcome:
    """How a run ended."""

    workers: int = 1  # now
    failed: dict[str, str] = field(default_factory=dict)  # key -> reason
    finished: int = 0
    seconds: float = 0.0  # wall-clock, without the start of Ray
    busy: float = 0.0  # the jobs' own seconds
    start: float = 0.0  # seconds that Ray took to start
    interrupted: bool = False
    lost: str | None = None  # what died, of the cluster or the GPU, so that the run could not go on
    worker_s: float = 0.0  # seconds of all workers: nodes join and leave
    limits: list[Limit] = field(default_factory=list)  # now, where kinds of jobs get different resources
    # the jobs' own seconds by kind
    work: dict[str, float] = field(default_factory=lambda: dict.fromkeys(JOB_KINDS, 0.0))
    _since: float = 0.0
    _there: list[float] = field(default_factory=list)  # of each limit, times seconds

    def begin(self) -> None:
        """The jobs begin."""
        self._since = time.monotonic()

    def resize(self, workers: int, limits: Sequence[Limit] = ()) -> None:
        """From now on there are so many workers."""
        passed = time.monotonic() - self._since
        self.seconds, self.worker_s = self.seconds + passed, self.worker_s + passed * self.workers
        before = self._there or [0.0] * len(self.limits)
        self._there = [s + passed * limit.there for s, limit in zip(before, self.limits, strict=True)]
        self.workers, self.limits, self._since = workers, list(limits), time.monotonic()

    def end(self) -> None:
        """The jobs have ended."""
        self.resize(self.workers, self.limits)

    @property
    def mean_workers(self) -> float:
        """How many workers there were on average."""
        return self.worker_s / self.seconds if self.seconds else float(self.workers)

    @property
    def overhead(self) -> float:
        """Seconds of all workers over the jobs' own, less one."""
        return self.seconds / self.least - 1 if self.least else 0.0

    @property
    def least(self) -> float:
        """The seconds that these jobs would take at best on the workers that there were."""
        if not self.limits or not self.seconds:
            return self.busy / self.mean_workers
        mean = [Limit(of.takes, s / self.seconds) for of, s in zip(self.limits, self._there, strict=True)]
        return least_seconds(mean, self.work)


def finish_job(
    queue: ReadyQueue, progress: Progress, outcome: Outcome, key: str, result: Mapping[str, Any]
) -> None:
    """Note the end of a job, and of the jobs that cannot run because it failed."""
    outcome.busy += result["seconds"]
    outcome.work[queue.jobs[key].kind] += result["seconds"]
    outcome.finished += bool(result["ok"])
    progress.finished(key, result["ok"], result["seconds"])
    if not result["ok"]:
        progress.say(f"failed: {queue.jobs[key].label}: {result['error']}")
    for lost in queue.finish(key, None if result["ok"] else result["error"]):
        progress.finished(lost, False, 0.0)
    outcome.failed = queue.failed
