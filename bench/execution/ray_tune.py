"""The whole graph as one Ray Tune run. Of the harness, the modules ray_* alone import ray."""

import contextlib
import dataclasses
import logging
import os
import pickle
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.core.io import temporary
from bench.core.signals import stop_on_signals
from bench.execution.capacity import Capacity, Node
from bench.execution.deaths import MOST_DEATHS, Deaths
from bench.execution.faults import FAULT_EXIT
from bench.execution.folder_server import FolderServer
from bench.execution.head import HeadWatch
from bench.execution.jobs import JobContext
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job
from bench.execution.ray_cluster import Cluster, bundle, seen_nodes
from bench.execution.remote_job import Home, run_trial_at
from bench.planning.graph import Job
from bench.planning.resources import Needs

import ray  # isort: skip  (after the environment that ray_cluster sets)
from ray import tune  # isort: skip
from ray.tune.schedulers import FIFOScheduler  # isort: skip
from ray.tune.search import ConcurrencyLimiter, Searcher  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # isort: skip

LOOK_S = 3.0  # between two looks at the size of the cluster


class Unpickled:
    """Pickled as nothing: Tune pickles callbacks to a file that is never read; ours hold a terminal."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class JobSearcher(Unpickled, Searcher):
    """A Tune searcher that suggests a trial for each job whose inputs exist.

    A trial gets its job only when its process has it: Tune keeps some trials waiting, so as to keep processes
    too, and what becomes ready meanwhile may go first.
    """

    def __init__(
        self,
        queue: ReadyQueue,
        progress: Progress,
        outcome: Outcome,
        folder: Path,
        head: HeadWatch,
        capacity: Capacity,
    ) -> None:
        super().__init__(metric="seconds", mode="min")
        self.queue, self.progress, self.outcome, self.folder = queue, progress, outcome, folder
        self.head, self.capacity = head, capacity
        self.deaths = Deaths(folder, ray.nodes)
        self.waiting: dict[str, Needs | None] = {}  # trials without a job, and what theirs will get
        self.trials: dict[str, str] = {}  # the key of the job of each other one

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        waiting = Counter(self.waiting.values())
        for needs, n in self.queue.ready().items():
            if n > waiting[needs] and self._room(needs):
                self.waiting[trial_id] = needs
                return {"trial": trial_id, "needs": bundle(needs)}
        return None if self.queue.open else Searcher.FINISHED

    def _room(self, needs: Needs | None) -> bool:
        """Whether a trial for such a job may wait.

        Where all jobs get the same, any: the limiter says how many. Else those that fit beside all that run
        and wait: Tune gives a process that ends a job to the next trial that gets the same, so that
        others would wait until there is none.
        """
        if needs is None or self.capacity.alike:
            return True
        running = [self.capacity.kinds[self.queue.jobs[key].kind] for key in self.trials.values()]
        live = [*running, *(other for other in self.waiting.values() if other)]
        return not live or self.capacity.fits([*live, needs])

    def job(self, trial_id: str) -> Job:
        """The job of a trial; at first the best one that is ready, put where the trial finds it."""
        if trial_id in self.waiting:
            job = self.queue.next(self.waiting.pop(trial_id))
            assert job is not None, "there are no more trials than jobs"
            self.trials[trial_id] = job.key
            (self.folder / trial_id).write_bytes(pickle.dumps(job))
        return self.queue.jobs[self.trials[trial_id]]

    def give_up(self, trial_id: str, why: str) -> None:
        """Let the trial say, in place of its job, that it is not tried again."""
        result = {"ok": False, "error": why, "seconds": 0.0}
        (self.folder / trial_id).write_bytes(pickle.dumps(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if error:
            self.head.check()
        key = self.job(trial_id).key  # a trial whose process never came has none yet
        del self.trials[trial_id]
        if error or not result or "ok" not in result:
            died = self.deaths.verdict(trial_id) or "no process could be started for it"
            result = {"ok": False, "error": died, "seconds": 0.0}
        finish_job(self.queue, self.progress, self.outcome, key, result)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the store has what is done."""


class OldestFirstScheduler(FIFOScheduler):
    """Oldest first while every slot has its process; newest first while one may be starting.

    Tune lets a cached process take over the trial whose own process is still starting, which is then killed:
    with the oldest always first, a slot that lost its process never gets one again. With the newest always
    first, a prerequisite can wait behind everything that came after it.
    """

    def __init__(self, slots: int, alike: bool = True) -> None:
        """`alike`: all jobs get the same; else no more trials wait than fit, and the newest is first."""
        super().__init__()
        self.slots, self.alike, self.settled = slots, alike, False

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Any:
        trials = tune_controller.get_trials()
        pending = [trial for trial in trials if trial.status == "PENDING"]
        if sum(trial.status == "RUNNING" for trial in trials) >= self.slots:
            self.settled = True
        elif not pending:  # Tune lets idle processes go
            self.settled = False
        return (pending[0] if self.settled and self.alike else pending[-1]) if pending else None


class JobCallback(Unpickled, tune.Callback):
    """Gives trials their jobs, tells which start or are tried again, follows the cluster's size."""

    def __init__(
        self, searcher: JobSearcher, scheduler: OldestFirstScheduler, nodes: Callable[[], tuple[Node, ...]]
    ) -> None:
        """`nodes` says what the cluster has."""
        self.searcher, self.progress, self.scheduler = searcher, searcher.progress, scheduler
        self.nodes = nodes
        self.limiter = ConcurrencyLimiter(searcher, max_concurrent=2 * scheduler.slots)
        self.looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if time.monotonic() - self.looked > LOOK_S:
            self.looked = time.monotonic()
            self.resize(Capacity(self.nodes(), self.searcher.capacity.kinds))

    def resize(self, capacity: Capacity) -> None:
        """Take note of how many jobs fit now."""
        before, slots = self.searcher.capacity, max(1, capacity.most)
        if before.nodes == capacity.nodes:
            return
        self.searcher.capacity, self.progress.limits = capacity, capacity.limits
        self.searcher.outcome.resize(slots, capacity.limits)
        self.scheduler.slots = self.progress.workers = slots
        self.scheduler.settled = False
        self.limiter.max_concurrent = 2 * slots
        if str(before) != str(capacity):
            what = "joined" if capacity.size > before.size else "left"
            was = str(before.most) if capacity.alike else str(before)
            self.progress.say(f"{capacity} instead of {was}: a node has {what}")

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.searcher.deaths.started(trial.trial_id)
        self.progress.started(self.searcher.job(trial.trial_id).key)  # before its function is called

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.searcher.head.check()
        self.scheduler.settled = False
        job, deaths = self.searcher.job(trial.trial_id), self.searcher.deaths
        self.progress.stopped(job.key)
        deaths.died(trial.trial_id)
        if verdict := deaths.verdict(trial.trial_id):
            self.searcher.give_up(trial.trial_id, verdict)
            trial.max_failures = trial.num_failures  # what it does next it does once
        else:
            self.progress.say(f"tried again: {job.label}: {deaths.reason(trial.trial_id)}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.scheduler.settled = False


class _Called:
    """The methods of an actor, called as those of an object here; what they raise is raised."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            try:
                return ray.get(getattr(self.actor, name).remote(*words))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

        return call


def run_job_trial(config: dict[str, Any], context: dict[str, Any], home: Home, server: Any) -> None:
    """One trial is one job; keys and plain values travel, results stay in the store or are sent there."""
    node = ray.get_runtime_context().get_node_id()
    folder = _Called(server) if server else None
    result = run_trial_at(config["trial"], node, JobContext(**context), home, folder)
    if result["fault"]:
        os._exit(FAULT_EXIT)  # the job is tried again in a new process, and no other fails in this one
    tune.report(result)


def _serve(home: Home) -> Any:
    """The result folder for nodes that do not see it, by a process on this machine."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 4, "max_restarts": -1, "max_task_retries": -1}
    return (
        ray.remote(FolderServer).options(scheduling_strategy=here, **options).remote(home.root, home.scratch)
    )


@contextlib.contextmanager
def ending_in(outcome: Outcome, head: HeadWatch, scratch: Path) -> Iterator[None]:
    """Ctrl-C and the loss of a server end the block, and are noted in the outcome; the scratch folder "
    "goes."""
    try:
        with stop_on_signals():
            yield
    except KeyboardInterrupt:
        outcome.interrupted = not head.lost
    except Exception:  # of many kinds, once a server is gone
        if not head.gone():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    outcome.lost = head.lost


def run_ray(queue: ReadyQueue, context: JobContext, progress: Progress, there: Cluster) -> Outcome:
    """Run until nothing is left (inside `cluster`), with reused actors for the jobs that get the same."""
    outcome = Outcome(there.slots, start=there.start_s, limits=there.capacity.limits)
    scheduler = OldestFirstScheduler(there.slots, there.capacity.alike)
    scratch = Path(tempfile.mkdtemp(prefix=temporary("tune"), dir=context.root))
    there.head.scratch = scratch
    searcher = JobSearcher(queue, progress, outcome, scratch, there.head, there.capacity)
    home = Home.of(context.root, scratch)
    tuner = _tuner(searcher, scheduler, context, home, _serve(home) if there.joined else None)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # the summary names what failed, and why
    outcome.begin()
    with ending_in(outcome, there.head, scratch):
        tuner.fit()
    outcome.end()
    return outcome


def _tuner(
    searcher: JobSearcher, scheduler: OldestFirstScheduler, context: JobContext, home: Home, server: Any
) -> tune.Tuner:
    callback = JobCallback(searcher, scheduler, seen_nodes)
    run = tune.with_parameters(run_job_trial, context=dataclasses.asdict(context), home=home, server=server)
    return tune.Tuner(
        tune.with_resources(run, lambda config: tune.PlacementGroupFactory([config["needs"]])),
        tune_config=tune.TuneConfig(
            search_alg=callback.limiter,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(searcher.folder),
            verbose=0,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=MOST_DEATHS),
        ),
    )
