"""Run one trial: a distillation that tells what its set scores on the hold-out, rung by rung."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.core import timing
from bench.core.distilled import load_distilled
from bench.core.errors import first_line
from bench.core.loop import Loop
from bench.evaluation.scoring import train_and_score
from bench.execution.evaluate_job import load_setting
from bench.execution.jobs import JobContext, load_data, run_job
from bench.execution.store import WEIGHTS, Store
from bench.planning.graph import Job
from bench.planning.trials import Trial
from bench.records.trial import WHOLE, TrialRecord

Report = Callable[[dict[str, Any]], None]  # of a rung, or {"error": why}, and the trial's costs beside it


class TrialStopped(BaseException):
    """Raised by a report: the trial is worse than others. No `Exception`, so that no method holds it up."""


def pack_trial(trial: Trial) -> str:
    """A trial as a text, to be sent to a worker."""
    return json.dumps({**dataclasses.asdict(trial), "record": trial.record.model_dump(mode="json")})


def unpack_trial(text: str) -> Trial:
    """The trial of a text that `pack_trial` made."""
    content = json.loads(text)
    return Trial(
        record=TrialRecord.model_validate(content["record"]),
        label=content["label"],
        distill=Job(**content["distill"]),
        prepare=tuple(Job(**job) for job in content["prepare"]),
        scores=tuple(Job(**job) for job in content["scores"]),
    )


def run_trial(trial: Trial, context: JobContext, report: Report) -> None:
    """Distill, and report each rung; those that the record has from an earlier run first, and not again.

    Killed in between, it goes on at its last checkpoint, as every distillation.

    Raises:
        TrialStopped: as `report` did.
    """
    known = {rung.percent for rung in trial.record.rungs}
    for rung in trial.record.rungs:  # that run may have ended before it was compared
        report(rung.model_dump())
    store, key = Store(Path(context.root)), trial.distill.key
    for job in trial.prepare:  # those of the default values are there
        if not store.artifact(job.key).exists() and (made := run_job(job, context))["error"]:
            report({"error": f"{job.label}: {made['error']}"})
            return

    def score(file: Path, percent: int, operations: float | None, seconds: float) -> None:
        if percent not in known:
            report(_rung(trial, context, file, percent) | {"operations": operations, "distill_s": seconds})

    def watch(loop: Loop) -> None:
        taken, counted, folder = loop.snapshots[-1], loop.operations, loop.folder
        assert counted is not None
        assert folder is not None
        spent = counted.fixed + counted.step * taken["step"]
        score(folder / taken["file"], round(WHOLE * taken["fraction"]), spent, taken["seconds"])

    ended = run_job(trial.distill, context, watch)
    if ended["error"]:
        report({"error": ended["error"]})
        return
    cost = store.meta(key)["cost"]
    costs = {name: cost[name] for name in ("prepare_operations", "prepare_s", "device")}
    try:
        found = _rung(trial, context, store.artifact(key) / WEIGHTS, WHOLE)
    except Exception as error:  # what scoring raises fails this trial only
        report({"error": f"{type(error).__name__}: {first_line(error)}"})
        return
    report(found | {"operations": cost["distill_operations"], "distill_s": cost["distill_s"]} | costs)


def _rung(trial: Trial, context: JobContext, file: Path, percent: int) -> dict[str, Any]:
    """What students score on the hold-out with a set as it was stored."""
    store, device = Store(Path(context.root)), torch.device("cuda:0" if context.gpus else "cpu")
    begin, accuracies = time.perf_counter(), list[float]()
    for job in trial.scores:
        data = load_data(job, context)
        setting = load_setting(store, job.inputs, job.identity, data, device)
        accuracies += train_and_score(load_distilled(file, device), setting).scores.accuracies
    timing.synchronize(device)
    return {
        "percent": percent,
        "accuracy": sum(accuracies) / len(accuracies),
        "accuracies": accuracies,
        "score_s": time.perf_counter() - begin,
    }


def forget(store: Store, key: str) -> None:
    """Remove the set of a trial and its checkpoint: the record has what it scored."""
    for folder in (store.artifact(key), store.checkpoint(key)):
        shutil.rmtree(folder, ignore_errors=True)
