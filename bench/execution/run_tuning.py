"""Run what is missing of a tuning: prerequisites, then trials, inline or on Ray."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from rich.console import Console

from bench.core.signals import stop_on_signals
from bench.execution.halving import SuccessiveHalving
from bench.execution.inline import run_inline
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue
from bench.execution.trials import TrialStopped, run_trial
from bench.execution.tuning import CellTrials, Tell, Tuning
from bench.planning.trials import Trial


def run_tuning(tuning: Tuning, executor: str, address: str | None, console: Console, tell: Tell) -> Outcome:
    """Run until no trial is left; Ctrl-C, whenever it comes, is noted in the outcome."""
    if address:
        from bench.execution.ray_cluster import check_address

        check_address(address)  # before a folder is made
    try:
        with stop_on_signals(), tuning.locked():
            if not tuning.left:
                return Outcome()
            return (_on_ray if executor == "ray" else _inline)(tuning, address, console, tell)
    except KeyboardInterrupt:
        return Outcome(interrupted=True)


def _inline(tuning: Tuning, address: str | None, console: Console, tell: Tell) -> Outcome:
    if missing := tuning.missing:
        done = tuning.jobs.keys() - missing.keys()
        with Progress(tuning.costs, done, 1, console, tuning.store) as progress:
            queue = ReadyQueue(tuning.jobs, done, set(missing))
            outcome = run_inline(queue, tuning.context(), progress)
        if outcome.interrupted:
            return outcome
    run_trials_inline(tuning, tell)
    return Outcome()


def _on_ray(tuning: Tuning, address: str | None, console: Console, tell: Tell) -> Outcome:
    from bench.execution.ray_cluster import cluster
    from bench.execution.ray_trials import run_trials_ray  # a second to import, not installed everywhere
    from bench.execution.ray_tune import run_ray

    kinds = {kind: tuning.resources.of(kind) for kind in ("prepare", "distill")}
    with cluster(address, kinds) as there:
        console.print(f"{there.capacity}, started in {there.start_s:.1f} s", highlight=False)
        if missing := tuning.missing:
            done = tuning.jobs.keys() - missing.keys()
            slots, limits = there.slots, there.capacity.limits
            with Progress(tuning.costs, done, slots, console, tuning.store, limits) as progress:
                queue = ReadyQueue(tuning.jobs, done, set(missing), kinds)
                outcome = run_ray(queue, tuning.context(there.capacity), progress, there)
            if outcome.interrupted or outcome.lost:
                return outcome
        return run_trials_ray(tuning, there, tell)


def run_trials_inline(tuning: Tuning, tell: Tell) -> None:
    """One trial after the other in this process; Ctrl-C ends it as KeyboardInterrupt."""
    rules = {one.cell.key: SuccessiveHalving() for one in tuning.cells}
    for one in tuning.cells:
        for record in one.ended:
            for rung in record.rungs:
                rules[one.cell.key].stops(rung.percent, rung.accuracy)
    context = tuning.context()
    with stop_on_signals():
        for one, trial in _trials(tuning):
            number, rule = trial.record.number, rules[one.cell.key]

            def report(
                content: dict[str, Any],
                one: CellTrials = one,
                number: int = number,
                rule: SuccessiveHalving = rule,
            ) -> None:
                tuning.note(one, number, content)
                worse = "percent" in content and rule.stops(content["percent"], content["accuracy"])
                if worse and number:  # the default values, 0, are always known to their end
                    raise TrialStopped

            with suppress(TrialStopped):
                run_trial(trial, context, report)
            tell(tuning.told(one, tuning.end(one, number)))


def _trials(tuning: Tuning) -> Iterator[tuple[CellTrials, Trial]]:
    while found := tuning.next():
        yield found
