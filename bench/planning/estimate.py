"""What a plan will cost, from the records of what has run."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from bench.core.loop import SNAPSHOT_FRACTIONS
from bench.planning.graph import Job
from bench.records.schema import Record


def estimate_seconds(jobs: Mapping[str, Job], records: Iterable[Record]) -> dict[str, float]:
    """{key: expected seconds} for the jobs that some record resembles.

    A job costs what the closest recorded ones did: the same method or architecture and ipc, else any ipc.
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
        resembles, times = _resembles(job, jobs)
        near = next((seen[key] for key in resembles if key in seen), None)
        if near:
            found[job.key] = fmean(near) * times
    return found


def _resembles(job: Job, jobs: Mapping[str, Job]) -> tuple[list[tuple[object, ...]], int]:
    """Where to look, best first; and how often the cost is paid."""
    identity = job.identity
    if job.kind == "prepare":
        return [("prepare",)], 1
    if job.kind == "distill":
        key: tuple[object, ...] = ("distill", identity["method"])
        return [(*key, identity["ipc"]), key], 1
    key = ("evaluate", identity["architecture"], identity["protocol"]["name"])
    ipc = jobs[job.inputs["artifact"]].identity["ipc"]
    rates = len(identity["protocol"]["rates"]) if job.kind == "tune" else 1
    sets = 1 + (
        len(SNAPSHOT_FRACTIONS) if identity.get("snapshots") else 0
    )  # a snapshot costs what the set does
    return [(*key, ipc), key], identity["students"] * rates * sets
