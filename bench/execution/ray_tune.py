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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.io import temporary
from bench.core.registry import plugin_environment
from bench.core.signals import stop_on_signals
from bench.execution.capacity import Capacity, Node
from bench.execution.head import Address, HeadWatch
from bench.execution.jobs import JobContext, run_job
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job
from bench.planning.graph import Job
from bench.planning.resources import Needs

RETRIES = 2  # of a job whose process died
ACCELERATOR = "accelerator_type:"  # before its name: what Ray calls that resource of a node
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


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined."""

    capacity: Capacity
    start_s: float
    head: HeadWatch

    @property
    def slots(self) -> int:
        """How many jobs fit at once."""
        return self.capacity.most


@contextlib.contextmanager
def cluster(address: str | None, kinds: Mapping[str, Needs]) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at `address`.

    Args:
        address: host:port, or auto; None: this machine.
        kinds: what the kinds of jobs get that are to run.

    Raises:
        UserError: no job of a kind fits, or no cluster answers.
    """
    begin = time.monotonic()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": 200 * 2**20}
    else:
        options |= {"address": address, "runtime_env": {"env_vars": ENVIRONMENT | plugin_environment()}}
    try:
        ray.init(**options)
    except Exception as error:  # of many kinds
        ray.shutdown()
        raise (_no_cluster(address, error) if address else _no_start(error)) from None
    try:
        capacity = Capacity(seen_nodes(), kinds)
        capacity.check()
        with HeadWatch(_servers()) as head:
            try:
                yield Cluster(capacity, time.monotonic() - begin, head)
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


def seen_nodes() -> tuple[Node, ...]:
    """The machines of the cluster, as it is now."""
    nodes = []
    for has in (node["Resources"] for node in ray.nodes() if node["Alive"]):
        makes = frozenset(name.removeprefix(ACCELERATOR) for name in has if name.startswith(ACCELERATOR))
        nodes.append(Node(has.get("CPU", 0.0), int(has.get("GPU", 0)), makes))
    return tuple(sorted(nodes, key=repr))


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
        self.waiting: dict[str, Needs | None] = {}  # trials without a job, and what theirs will get
        self.trials: dict[str, str] = {}  # the key of the job of each other one

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        waiting = Counter(self.waiting.values())
        for needs, n in self.queue.ready().items():
            if n > waiting[needs] and self._room(needs):
                self.waiting[trial_id] = needs
                return {"trial": trial_id, "needs": _bundle(needs)}
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

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if error:
            self.head.check()
        key = self.job(trial_id).key  # a trial whose process never came has none yet
        del self.trials[trial_id]
        if error or not result or "ok" not in result:
            died = f"its process died {RETRIES + 1} times (killed, or out of memory)"
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


class JobCallback(_Unpickled, tune.Callback):
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
        self.progress.started(self.searcher.job(trial.trial_id).key)  # before its function is called

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.searcher.head.check()
        self.scheduler.settled = False
        job = self.searcher.job(trial.trial_id)
        self.progress.stopped(job.key)
        self.progress.say(f"tried again: {job.label}: its process died")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.scheduler.settled = False


def run_trial(config: dict[str, Any], context: dict[str, Any], folder: str) -> None:
    """One trial is one job; keys and plain values travel, results stay in the store."""
    job: Job = pickle.loads((Path(folder) / config["trial"]).read_bytes())
    tune.report(run_job(job, JobContext(**context)))


def run_ray(queue: ReadyQueue, context: JobContext, progress: Progress, there: Cluster) -> Outcome:
    """Run until nothing is left (inside `cluster`), with reused actors for the jobs that get the same."""
    outcome = Outcome(there.slots, start=there.start_s, limits=there.capacity.limits)
    scheduler = OldestFirstScheduler(there.slots, there.capacity.alike)
    scratch = Path(tempfile.mkdtemp(prefix=temporary("tune"), dir=context.root))
    there.head.scratch = scratch
    searcher = JobSearcher(queue, progress, outcome, scratch, there.head, there.capacity)
    tuner = _tuner(searcher, scheduler, context)
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


def _bundle(needs: Needs | None) -> dict[str, float]:
    """What a trial asks Ray for; of a make of GPU next to nothing, as Ray's own `accelerator_type` does."""
    assert needs is not None, "the queue knows what jobs get"
    gpus = {"GPU": needs.gpus} if needs.gpus else {}
    return {
        "CPU": needs.cpus,
        **gpus,
        **({f"{ACCELERATOR}{needs.accelerator}": 0.001} if needs.accelerator else {}),
    }


def _tuner(searcher: JobSearcher, scheduler: OldestFirstScheduler, context: JobContext) -> tune.Tuner:
    callback = JobCallback(searcher, scheduler, seen_nodes)
    run = tune.with_parameters(run_trial, context=dataclasses.asdict(context), folder=str(searcher.folder))
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
            failure_config=tune.FailureConfig(max_failures=RETRIES),
        ),
    )
