"""The trials of a tuning as one Ray Tune run; ASHA stops what is worse than others and frees its worker."""

import dataclasses
import logging
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.core.io import temporary
from bench.execution.capacity import Capacity
from bench.execution.deaths import RETRIES
from bench.execution.halving import FIRST, KEPT
from bench.execution.jobs import JobContext
from bench.execution.queue import Outcome
from bench.execution.ray_cluster import Cluster, bundle, seen_nodes
from bench.execution.ray_tune import LOOK_S, OldestFirstScheduler, Unpickled, ending_in
from bench.execution.trials import TrialStopped, pack_trial, run_trial, unpack_trial
from bench.execution.tuning import CellTrials, Tell, Tuning
from bench.records.trial import WHOLE, TrialRecord

from ray import tune  # isort: skip  (after the environment that ray_cluster sets)
from ray.tune.schedulers import ASHAScheduler, TrialScheduler  # isort: skip
from ray.tune.search import ConcurrencyLimiter, Searcher  # isort: skip


class TrialSearcher(Unpickled, Searcher):
    """Suggests the next trial of the tuning, and hears what trials report."""

    def __init__(self, tuning: Tuning, there: Cluster, tell: Tell) -> None:
        super().__init__()
        self.tuning, self.there, self.tell = tuning, there, tell
        self.trials: dict[str, tuple[CellTrials, int]] = {}  # by Tune's id
        self.died: list[str] = []  # labels of trials whose process did, too often

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if (found := self.tuning.next()) is None:
            return Searcher.FINISHED
        one, trial = found
        self.trials[trial_id] = (one, trial.record.number)
        return {"trial": pack_trial(trial)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "percent" in result or "error" in result:
            self.tuning.note(*self.trials[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        one, number = self.trials[trial_id]
        if error:
            self.there.head.check()
            self.died.append(one.running[number].label)  # without a result: it is run again next time
            return
        if result:
            self.on_trial_result(trial_id, result)
        self.tell(self.tuning.told(one, self.tuning.end(one, number)))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the records have what is done."""


def halving_rule(recorded: list[TrialRecord]) -> ASHAScheduler:
    """Tune's scheduler for the trials of one cell, with what earlier runs have recorded."""
    rule = ASHAScheduler(
        time_attr="percent",
        metric="accuracy",
        mode="max",
        max_t=WHOLE,
        grace_period=FIRST,
        reduction_factor=KEPT,
    )
    controller: Any = None  # it does not look at one
    for record in recorded:
        known: Any = SimpleNamespace(trial_id=record.key)
        rule.on_trial_add(controller, known)
        for rung in record.rungs:
            rule.on_trial_result(controller, known, rung.model_dump())
    return rule


class HalvingScheduler(OldestFirstScheduler):
    """A rule for each cell: trials are compared with those of the same method, data set and ipc."""

    def __init__(self, slots: int, searcher: TrialSearcher) -> None:
        super().__init__(slots)
        self._trials = searcher.trials
        self._rules = {one.cell.key: halving_rule(one.ended) for one in searcher.tuning.cells}

    def _rule(self, trial: Any) -> ASHAScheduler:
        return self._rules[self._trials[trial.trial_id][0].cell.key]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._rule(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = self._rule(trial).on_trial_result(tune_controller, trial, result)
        if self._trials[trial.trial_id][1] == 0:  # the default values are always known to their end
            return str(TrialScheduler.CONTINUE)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._rule(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._rule(trial).on_trial_remove(tune_controller, trial)


class TrialCallback(Unpickled, tune.Callback):
    """Tells which trials are tried again, and follows the cluster's size."""

    def __init__(
        self, searcher: TrialSearcher, scheduler: HalvingScheduler, limiter: ConcurrencyLimiter, fitting: Any
    ) -> None:
        self.searcher, self.scheduler, self.limiter, self.fitting = searcher, scheduler, limiter, fitting
        self.looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if time.monotonic() - self.looked > LOOK_S:
            self.looked, slots = time.monotonic(), max(1, self.fitting())
            if slots != self.scheduler.slots:
                self.scheduler.slots, self.scheduler.settled = slots, False
                self.limiter.max_concurrent = slots + 1

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.searcher.there.head.check()
        self.scheduler.settled = False
        one, number = self.searcher.trials[trial.trial_id]
        self.searcher.tell(f"tried again: {one.running[number].label}: its process died")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.scheduler.settled = False


def run_packed(config: dict[str, Any], context: dict[str, Any]) -> None:
    """A trial in its worker; Tune ends it inside of a report."""

    def report(content: dict[str, Any]) -> None:
        try:
            tune.report(content)
        except SystemExit:  # which a job would take for a fault of its method
            raise TrialStopped from None

    try:
        run_trial(unpack_trial(config["trial"]), JobContext(**context), report)
    except TrialStopped:
        raise SystemExit(0) from None


def run_trials_ray(tuning: Tuning, there: Cluster, tell: Tell) -> Outcome:
    """Run until no trial is left (inside `cluster`)."""
    context, outcome = tuning.context(there.capacity), Outcome(there.slots)
    scratch = Path(tempfile.mkdtemp(prefix=temporary("tune"), dir=context.root))
    there.head.scratch = scratch
    searcher = TrialSearcher(tuning, there, tell)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    with ending_in(outcome, there.head, scratch):
        _tuner(searcher, context, scratch).fit()
    outcome.failed = dict.fromkeys(searcher.died, f"its process died {RETRIES + 1} times")
    return outcome


def _tuner(searcher: TrialSearcher, context: JobContext, scratch: Path) -> tune.Tuner:
    needs = searcher.there.capacity.kinds["distill"]
    slots = searcher.there.capacity.slots(needs)
    scheduler = HalvingScheduler(slots, searcher)
    limiter = ConcurrencyLimiter(searcher, max_concurrent=slots + 1)  # one waits, to keep its process

    def fitting() -> int:
        return Capacity(seen_nodes(), {}).slots(needs)

    run = tune.with_parameters(run_packed, context=dataclasses.asdict(context))
    return tune.Tuner(
        tune.with_resources(run, tune.PlacementGroupFactory([bundle(needs)])),
        tune_config=tune.TuneConfig(
            search_alg=limiter,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tuning",
            storage_path=str(scratch),
            verbose=0,
            callbacks=[TrialCallback(searcher, scheduler, limiter, fitting)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
        ),
    )
