"""The expected cost of a plan, from the records of earlier runs."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from bench.core.loop import SNAPSHOT_FRACTIONS
from bench.planning.graph import Job
from bench.records.schema import Record


def estimate_seconds(jobs: Mapping[str, Job], records: Iterable[Record]) -> dict[str, float]:
    """Estimate what jobs will cost.

    A job is expected to cost the mean of similar ones: the same method (or architecture and protocol) with
    the same ipc, or any ipc if there are none.

    Args:
        jobs: the plan by key, with all inputs of its jobs.
        records: of earlier runs.

    Returns:
        {key: seconds} for the jobs with similar records.
    """
    seen: dict[tuple[object, ...], list[float]] = {}
    for record in records:
        ipc, cost = record.ipc, record.cost
        for key, spent in (
            (("prepare",), cost.prepare_s),
            (("distill", record.method), cost.distill_s),
            (("evaluate", record.eval_arch, record.protocol), cost.evaluate_s / len(record.accuracies)),
        ):
            if spent:
                seen.setdefault(key, []).append(spent)
                seen.setdefault((*key, ipc), []).append(spent)
    found = {}
    for job in jobs.values():
        similar, times = _similar(job, jobs)
        costs = next((seen[key] for key in similar if key in seen), None)
        if costs:
            found[job.key] = fmean(costs) * times
    return found


def _similar(job: Job, jobs: Mapping[str, Job]) -> tuple[list[tuple[object, ...]], int]:
    """The keys of similar costs, best first, and how many times the job has that cost."""
    identity = job.identity
    if job.kind == "prepare":
        return [("prepare",)], 1
    if job.kind == "distill":
        key: tuple[object, ...] = ("distill", identity["method"])
        return [(*key, identity["ipc"]), key], 1
    key = ("evaluate", identity["architecture"], identity["protocol"]["name"])
    ipc = jobs[job.inputs["artifact"]].identity["ipc"]
    rates = len(identity["protocol"]["rates"]) if job.kind == "tune" else 1
    sets = (
        1 + len(SNAPSHOT_FRACTIONS) if identity.get("snapshots") else 1
    )  # a snapshot is scored like the set
    return [(*key, ipc), key], identity["students"] * rates * sets
