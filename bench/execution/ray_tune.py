"""The whole graph as one Ray Tune run. The only module that imports ray."""

import contextlib
import dataclasses
import logging
import os
import pickle
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.io import temporary
from bench.core.registry import plugin_environment
from bench.core.signals import stop_on_signals
from bench.core.words import count
from bench.execution.deaths import MOST_DEATHS, Deaths
from bench.execution.folder_server import FolderServer
from bench.execution.head import Address, HeadWatch
from bench.execution.jobs import JobContext
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job
from bench.execution.remote_job import Home, run_trial_at
from bench.planning.graph import Job

CONNECT_S = 5.0  # to wait for a cluster
LOOK_S = 3.0  # between two looks at the size of the cluster
ENVIRONMENT = {  # read by ray when it is imported or started
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_AUTH_MODE": "disabled",  # no token file in the home directory; a cluster's own setting wins
    "RAY_worker_niceness": "0",  # the default of 15 falsifies seconds on a shared machine
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a CPU job sees no GPU
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it waits for the running step; ours stops at once
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # resuming is plan minus store, so Tune's own state is of no use
    "TUNE_WARN_THRESHOLD_S": "3600",
}
os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})

import ray  # noqa: E402 (after its environment)
from ray import tune  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import ConcurrencyLimiter, Searcher  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

# its servers' last words, a page of them, would stand among our lines
ray._private.worker.print_to_stdstream = lambda *args, **kwargs: None


def check_address(address: str) -> None:
    """Raises UserError, within seconds, when nothing listens at host:port: Ray itself tries for minutes."""
    if address == "auto":
        return  # Ray looks for itself, and gives up soon
    try:
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (ValueError, OSError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(f"--address {address}: no Ray cluster answers: {why}; give host:port or auto")


def worker_environment() -> dict[str, str]:
    """The variables of processes on a cluster: as here, where a setting of one's own wins (its tokens)."""
    return {name: os.environ[name] for name in ENVIRONMENT} | plugin_environment()


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined."""

    slots: int  # jobs that fit at once
    start_s: float
    head: HeadWatch
    joined: bool  # it was there before, and may have nodes that do not see the result folder


@contextlib.contextmanager
def cluster(address: str | None, cpus: int, gpus: float) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at `address`.

    Raises UserError when no job fits or no cluster answers.
    """
    begin = time.monotonic()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": 200 * 2**20}
    else:
        options |= {"address": address, "runtime_env": {"env_vars": worker_environment()}}
    try:
        ray.init(**options)
    except Exception as error:  # of many kinds
        ray.shutdown()
        raise (_no_cluster(address, error) if address else _no_start(error)) from None
    try:
        slots = count_slots(cpus, gpus)
        if slots < 1:
            there = ray.cluster_resources()
            have = " and ".join(f"{there.get(k, 0):g} {k}s" for k in ("CPU", "GPU"))
            raise UserError(
                f"resources: a job of {cpus} cpus and {gpus:g} gpus does not fit: there are {have}"
            )
        with HeadWatch(_servers()) as head:
            try:
                yield Cluster(slots, time.monotonic() - begin, head, address is not None)
            finally:
                _leave(head)
    finally:
        ray.shutdown()


def _leave(head: HeadWatch) -> None:
    """Leave the cluster; of one that has lost a server the others, which would look for it, are killed."""
    if head.lost:
        node: Any = ray._private.worker._global_node
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    else:
        head.leave()  # what was started here goes now
    ray.shutdown()


def _no_start(error: Exception) -> UserError:
    """Ray's own words, and for files the variable that says where they go."""
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if isinstance(error, OSError):
        variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "RAY_TMPDIR")
        why += f"; its files go to {variable}={os.environ.get(variable, '/tmp')}: name a folder with a short "
        why += "path that can be written"
    return UserError(f"Ray does not start here: {why}; or go without it: --executor inline")


def count_slots(cpus: int, gpus: float) -> int:
    """How many jobs fit into the cluster at once, as it is now."""
    there = ray.cluster_resources()
    slots = int(there.get("CPU", 0) // cpus)
    return min(slots, int(there.get("GPU", 0) / gpus + 1e-9)) if gpus else slots


def _servers() -> dict[str, Address]:
    """Without these two this process can do nothing: the cluster's head, and Ray on this machine."""
    here = ray.get_runtime_context()
    host, _, port = here.gcs_address.rpartition(":")
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here.get_node_id())
    local = (node["NodeManagerAddress"], node["NodeManagerPort"])
    return {"Ray's head": (host.strip("[]"), int(port)), "Ray on this machine": local}


class _Unpickled:
    """Pickled as nothing: Tune pickles callbacks to a file that is never read; ours hold a terminal."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class JobSearcher(_Unpickled, Searcher):
    """A Tune searcher that suggests a trial for each job whose inputs exist.

    A trial gets its job only when its process has it: Tune keeps some trials waiting, so as to keep processes
    too, and what becomes ready meanwhile may go first.
    """

    def __init__(
        self, queue: ReadyQueue, progress: Progress, outcome: Outcome, folder: Path, head: HeadWatch
    ) -> None:
        super().__init__(metric="seconds", mode="min")
        self.queue, self.progress, self.outcome, self.folder = queue, progress, outcome, folder
        self.head = head
        self.deaths = Deaths(folder, ray.nodes)
        self.waiting: set[str] = set()  # trials without a job
        self.trials: dict[str, str] = {}  # the key of the job of each other one

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self.queue.n_ready > len(self.waiting):
            self.waiting.add(trial_id)
            return {"trial": trial_id}
        return None if self.queue.open else Searcher.FINISHED

    def job(self, trial_id: str) -> Job:
        """The job of a trial; at first the best one that is ready, put where the trial finds it."""
        if trial_id in self.waiting:
            job = self.queue.next()
            assert job is not None, "there are no more trials than jobs"
            self.waiting.remove(trial_id)
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

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots, self.settled = slots, False

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Any:
        trials = tune_controller.get_trials()
        pending = [trial for trial in trials if trial.status == "PENDING"]
        if sum(trial.status == "RUNNING" for trial in trials) >= self.slots:
            self.settled = True
        elif not pending:  # Tune lets idle processes go
            self.settled = False
        return (pending[0] if self.settled else pending[-1]) if pending else None


class JobCallback(_Unpickled, tune.Callback):
    """Gives trials their jobs, tells which start or are tried again, follows the cluster's size."""

    def __init__(
        self, searcher: JobSearcher, scheduler: OldestFirstScheduler, fitting: Callable[[], int]
    ) -> None:
        """`fitting` says how many jobs fit into the cluster."""
        self.searcher, self.progress, self.scheduler = searcher, searcher.progress, scheduler
        self.fitting = fitting
        self.limiter = ConcurrencyLimiter(searcher, max_concurrent=2 * scheduler.slots)
        self.looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if time.monotonic() - self.looked > LOOK_S:
            self.looked = time.monotonic()
            self.resize(max(1, self.fitting()))

    def resize(self, slots: int) -> None:
        """Take note of how many jobs fit now."""
        before = self.scheduler.slots
        if slots != before:
            what = "joined" if slots > before else "left"
            self.progress.say(f"{count(slots, 'worker')} instead of {before}: a node has {what}")
            self.scheduler.slots = self.progress.workers = slots
            self.scheduler.settled = False
            self.limiter.max_concurrent = 2 * slots
            self.searcher.outcome.resize(slots)

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


def run_trial(config: dict[str, Any], context: dict[str, Any], home: Home, server: Any) -> None:
    """One trial is one job; keys and plain values travel, results stay in the store or are sent there."""
    node = ray.get_runtime_context().get_node_id()
    folder = _Called(server) if server else None
    tune.report(run_trial_at(config["trial"], node, JobContext(**context), home, folder))


def _serve(home: Home) -> Any:
    """The result folder for nodes that do not see it, by a process on this machine."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 4, "max_restarts": -1, "max_task_retries": -1}
    return (
        ray.remote(FolderServer).options(scheduling_strategy=here, **options).remote(home.root, home.scratch)
    )


def run_ray(queue: ReadyQueue, context: JobContext, progress: Progress, there: Cluster) -> Outcome:
    """Run until nothing is left (inside `cluster`): reused actors, one resource shape."""
    outcome, scheduler = Outcome(there.slots, start=there.start_s), OldestFirstScheduler(there.slots)
    scratch = Path(tempfile.mkdtemp(prefix=temporary("tune"), dir=context.root))
    there.head.scratch = scratch
    searcher = JobSearcher(queue, progress, outcome, scratch, there.head)
    home = Home.of(context.root, scratch)
    tuner = _tuner(searcher, scheduler, context, home, _serve(home) if there.joined else None)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # the summary names what failed, and why
    outcome.begin()
    try:
        with stop_on_signals():
            tuner.fit()
    except KeyboardInterrupt:
        outcome.interrupted = not there.head.lost
    except Exception:
        if not there.head.gone():  # else it is Ray's own
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    outcome.lost = there.head.lost
    outcome.end()
    return outcome


def _tuner(
    searcher: JobSearcher, scheduler: OldestFirstScheduler, context: JobContext, home: Home, server: Any
) -> tune.Tuner:
    bundle = {"CPU": context.cpus} | ({"GPU": context.gpus} if context.gpus else {})
    callback = JobCallback(searcher, scheduler, partial(count_slots, context.cpus, context.gpus))
    run = tune.with_parameters(run_trial, context=dataclasses.asdict(context), home=home, server=server)
    return tune.Tuner(
        tune.with_resources(run, tune.PlacementGroupFactory([bundle])),
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
