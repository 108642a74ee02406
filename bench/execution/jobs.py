"""Run one job of the plan: the same code in this process and in a worker."""

import contextlib
import dataclasses
import functools
import json
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bench.core import timing
from bench.core.errors import UserError, first_line
from bench.core.io import write_atomic
from bench.core.loop import Diverged, Loop
from bench.core.method import Problem
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.operations import JobOperations
from bench.core.precision import DEFAULT, Precision, computing
from bench.core.preprocess import Preprocess, Zca, restore_preprocess
from bench.core.registry import block_class, method_package
from bench.core.teacher_file import TeacherFile
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset, Split
from bench.data.spec import DatasetSpec
from bench.evaluation.storage import check_header
from bench.execution.evaluate_job import evaluate_artifact, tune_rate
from bench.execution.faults import FAULT_NOTE, is_device_fault, told_failure
from bench.execution.provenance import SOURCES, job_sources, versions
from bench.execution.step_reports import reporting
from bench.execution.store import WEIGHTS, Store
from bench.execution.warm_up import warm_up, warm_up_for
from bench.planning.estimate import repetition
from bench.planning.graph import Job
from bench.planning.sweep import build_method
from bench.records.schema import ANY_ARCHITECTURE, dump_record

ELSEWHERE = "elsewhere"  # the device of what was not made here


@dataclass(frozen=True)
class JobContext:
    """What a job needs apart from its identity; none of it changes a result. Plain values, to be pickled."""

    root: str  # result folder, absolute
    # fingerprint -> label, path of the cache, spec (JSON) to make it again
    datasets: dict[str, dict[str, str]]
    cpus: int
    gpus: float
    exclusive: bool
    commit: str  # of the checkout that the run was started from
    operations: dict[str, float] = field(default_factory=dict)  # by key of a job, where a plan counted them
    budget: float | None = None  # operations that the sweep lets a distillation spend; None: any amount
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)  # cpus, gpus, exclusive by kind of job

    def of(self, job: Job) -> "JobContext":
        """With what a job of this kind gets."""
        return dataclasses.replace(self, **self.kinds.get(job.kind, {}))


@functools.lru_cache(maxsize=4)
def _dataset(path: str, spec: str, fingerprint: str) -> Dataset:
    """Load once per process; decoded again on a node that does not have the cache file."""
    there = Path(path) if Path(path).exists() else prepare_dataset(DatasetSpec.model_validate_json(spec))
    found = read_dataset(there)
    if found.fingerprint != fingerprint:
        raise ValueError(
            f"the data of {found.label} on this machine differ from the ones that were planned with"
        )
    return found


@functools.lru_cache(maxsize=1)
def _train_split(whole: Dataset, device: torch.device) -> Split:
    """The training set on the device, once per process."""
    return whole.train.to(device)


_jobs_run = 0  # in this process


def run_job(
    job: Job, context: JobContext, on_snapshot: Callable[[Loop], None] | None = None
) -> dict[str, Any]:
    """Run a job and publish its result; never raises for a job's own fault.

    `on_snapshot` sees the loop of a distillation; what it raises that is no `Exception` ends the job, and is
    raised from here.

    Returns {"ok", "seconds", "error", "fault"}; the traceback is in the job's log. After a fault of the
    device nothing that this process runs next is sound: whoever called ends it.
    """
    global _jobs_run
    start = time.perf_counter()
    context = context.of(job)
    store = Store(Path(context.root))
    log = store.log(job.key)
    device = torch.device("cuda:0" if context.gpus else "cpu")
    error, fault = None, False
    try:
        warm_up(device)
        start = time.perf_counter()
        if store.state(job.kind, job.key) is not None:  # a retry may find its work done
            torch.set_num_threads(context.cpus)
            if context.gpus and context.gpus < 1:
                torch.cuda.set_per_process_memory_fraction(context.gpus, device)
            # the loop of a distillation reports by itself
            own = job.kind == "distill"
            told = contextlib.nullcontext() if own else reporting(store.checkpoint(job.key))
            watched = {} if on_snapshot is None else {"on_snapshot": on_snapshot}
            with told, computing(job_precision(job)):
                _RUN[job.kind](job, store, context, device, **watched)
    except (Exception, SystemExit) as failure:  # what a method raises fails its own job only; the log has it
        fault = is_device_fault(failure, device)
        error = told_failure(failure, job, context.gpus, device)
        note = f"{FAULT_NOTE}\n\n" if fault else ""
        try:
            write_atomic(log, f"{job.label}\n{job.key}\n\n{note}{traceback.format_exc()}")
        except (OSError, UserError) as unwritten:  # the fault is told, with or without its log
            error = f"{error} (without a log: {first_line(unwritten)})"
    else:
        with contextlib.suppress(OSError):
            log.unlink(missing_ok=True)
    _jobs_run += 1
    if error is not None and not fault and device.type == "cuda":
        torch.cuda.empty_cache()  # what the failed job held is free for others that share the GPU
    seconds = time.perf_counter() - start
    return {"ok": error is None, "error": error, "seconds": seconds, "fault": fault}


def job_precision(job: Job) -> Precision:
    """Of its arithmetic: students have that of their protocol."""
    found: Precision = job.identity.get("protocol", job.identity).get("precision", DEFAULT)
    return found


def load_data(job: Job, context: JobContext) -> Dataset:
    """The data set of a job, loaded once per process."""
    fingerprint = job.identity["dataset"]
    entry = context.datasets[fingerprint]
    return _dataset(entry["path"], entry["spec"], fingerprint)


def _problem(job: Job, store: Store, context: JobContext, device: torch.device) -> Problem:
    whole = load_data(job, context)
    prepared = {role: load_file(store.artifact(key) / WEIGHTS) for role, key in job.inputs.items()}
    whitening = job.inputs.get("whitening")
    kind = None if whitening is None else store.meta(whitening)["identity"]["values"]["kind"]
    return make_problem(job.identity, whole, _train_split(whole, device), prepared, kind)


def make_problem(
    identity: dict[str, Any],
    whole: Dataset,
    split: Split,
    prepared: dict[str, dict[str, torch.Tensor]],
    whitening: str | None,
) -> Problem:
    """The problem of a job: `split` is the training set on the device, `prepared` what its inputs made.

    `whitening` is the kind of the one that `prepared` holds, if any.
    """
    architecture = identity["architecture"]

    @timing.charged("network update")
    def make_net(generator: torch.Generator) -> Network:
        parsed, device = parse_architecture(architecture), split.images.device
        return parsed.build_on(device, whole.image_shape, whole.n_classes, generator)

    def no_net(generator: torch.Generator) -> Network:
        raise TypeError("the method uses a network but does not say so: add ARCHITECTURE to its `depends_on`")

    prepared = dict(prepared)
    published = identity.get("normalisation")  # the papers' own
    preprocess = Preprocess(whole.mean, whole.std) if published is None else restore_preprocess(published, {})
    if whitening is not None:
        preprocess = Zca.of(whitening, prepared.pop("whitening"))
    return Problem(
        images=split.images,
        labels=split.labels,
        n_classes=whole.n_classes,
        ipc=identity["ipc"] or 0,
        preprocess=preprocess,
        make_net=no_net if architecture == ANY_ARCHITECTURE else make_net,
        seed=identity["seed"],
        prepared=prepared,
        classes=whole.classes,
        host_labels=whole.train.labels,
    )


def _versions(job: Job, store: Store, context: JobContext, device: torch.device) -> dict[str, str]:
    """Software, settings and sources; an evaluation also says by which sources its set was made."""
    scored = job.inputs.get("artifact")
    made = store.meta(scored)["versions"] if scored else {}
    sources = {name: digest for name, digest in made.items() if name == SOURCES} | job_sources(job)
    return versions(device) | {"commit": context.commit} | sources


def _meta(
    job: Job, store: Store, context: JobContext, device: torch.device, cost: dict[str, Any]
) -> dict[str, Any]:
    place = {
        "device": timing.device_name(device),
        "cpus": context.cpus,
        "gpus": context.gpus,
        "exclusive": context.exclusive,
        "warm": _jobs_run > 0,
    }
    return {
        "kind": job.kind,
        "label": job.label,
        "identity": job.identity,
        "inputs": job.inputs,
        "classes": list(load_data(job, context).classes),
        "dataset_spec": json.loads(context.datasets[job.identity["dataset"]]["spec"]),
        "versions": _versions(job, store, context, device) | method_package(job.identity.get("method", "")),
        "cost": cost | place,
    }


def _run_prepare(job: Job, store: Store, context: JobContext, device: torch.device) -> None:
    problem = _problem(job, store, context, device)
    prepare = block_class(job.identity["block"])(**job.identity["values"])
    warm_up_for(prepare, job.identity, problem)
    operations = JobOperations()
    with timing.measure(device) as measured, operations.running():
        tensors = prepare.build(problem)
    cost = {
        "prepare_s": measured.seconds,
        "prepare_operations": context.operations.get(job.key, operations.sum),
        "peak_memory": {"prepare": measured.peak_bytes},
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    store.publish(
        job.key, _meta(job, store, context, device, cost), lambda folder: save_file(tensors, folder / WEIGHTS)
    )


def publish_teacher(job: Job, store: Store, context: JobContext, teacher: TeacherFile) -> None:
    """Publish a teacher that was trained elsewhere as what its job makes."""
    cost = {"prepare_s": teacher.seconds, "peak_memory": {"prepare": 0}}
    meta = _meta(job, store, context, torch.device("cpu"), cost)
    meta["cost"] |= {"device": ELSEWHERE, "warm": True}
    store.publish(job.key, meta, lambda folder: save_file(dict(teacher.state), folder / WEIGHTS))


def _checkpoint(job: Job, store: Store) -> Path:
    """Where the loop is kept; what other sources began there is thrown away, and not gone on with."""
    folder, sources = store.checkpoint(job.key), json.dumps(job_sources(job))
    mark = folder / "sources.json"
    if not mark.exists() or mark.read_text() != sources:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_atomic(mark, sources)
    return folder


def _run_distill(
    job: Job,
    store: Store,
    context: JobContext,
    device: torch.device,
    on_snapshot: Callable[[Loop], None] | None = None,
) -> None:
    problem = _problem(job, store, context, device)
    method = build_method(job.identity["method"], job.identity["hyperparameters"])
    warm_up_for(method, job.identity, problem)
    operations = JobOperations(*repetition(job.identity["hyperparameters"]))
    loop = Loop(folder := _checkpoint(job, store), operations=operations, on_snapshot=on_snapshot)
    try:
        with timing.measure(device) as measured, operations.running():
            distilled = method.distill(dataclasses.replace(problem, loop=loop))
        bad = [name for name, t in distilled.state_dict().items() if not torch.isfinite(t).all()]
        if distilled.preprocess != problem.preprocess:
            raise ValueError("the set must keep the problem's preprocess: its numbers are not counted")
        if bad:
            raise Diverged(f"{', '.join(bad)} not finite: lower the method's learning rate")
    except Diverged:
        shutil.rmtree(folder, ignore_errors=True)  # from there it would diverge again
        raise
    seconds = loop.method_seconds(measured.seconds)
    spent = _prerequisites(job, store)
    cost = {
        **spent,
        "distill_s": seconds,
        "bookkeeping_s": loop.bookkeeping_s,
        "distill_operations": context.operations.get(job.key, operations.sum),
        "peak_memory": {"distill": measured.peak_bytes, **spent["peak_memory"]},
        "cold": spent["cold"] + ([] if _jobs_run else ["distill"]),
    }
    last = {"step": loop.total, "fraction": 1.0, "seconds": seconds, "file": WEIGHTS}
    snapshots = [*loop.snapshots, last] if loop.total else []
    meta = _meta(job, store, context, device, cost) | {"snapshots": snapshots}

    def write(artifact: Path) -> None:
        distilled.save(artifact / WEIGHTS)
        check_header(artifact / WEIGHTS, distilled, problem.n_classes)
        for taken in loop.snapshots:
            shutil.copyfile(folder / taken["file"], artifact / taken["file"])

    store.publish(job.key, meta, write)
    shutil.rmtree(folder, ignore_errors=True)


def _prerequisites(job: Job, store: Store) -> dict[str, Any]:
    """What a job's inputs had cost: seconds, also by role (experts/3/7 is experts), and peak memory."""
    costs = {role: store.meta(key)["cost"] for role, key in job.inputs.items()}
    by_role: dict[str, float] = {}
    for role, cost in costs.items():
        name = role.partition("/")[0]
        by_role[name] = by_role.get(name, 0.0) + cost["prepare_s"]
    peaks = [cost["peak_memory"]["prepare"] for cost in costs.values()]
    operations = [
        cost.get("prepare_operations") for cost in costs.values()
    ]  # an earlier ddbench counted none
    return {
        "prepare_s": sum(cost["prepare_s"] for cost in costs.values()),
        "prerequisites_s": by_role,
        "prepare_operations": None if None in operations else sum(operations),
        "peak_memory": {"prepare": max(peaks)} if peaks else {},
        "prepared_on": "; ".join(sorted({cost["device"] for cost in costs.values() if "device" in cost})),
        "cold": [] if all(cost["warm"] for cost in costs.values()) else ["prepare"],
    }


def _where(job: Job, store: Store, context: JobContext, device: torch.device) -> dict[str, Any]:
    return {
        "device": str(device),
        "dataset": context.datasets[job.identity["dataset"]]["label"],
        "cpus": context.cpus,
        "gpus": context.gpus,
        "exclusive": context.exclusive,
        "warm": _jobs_run > 0,
        "budget": context.budget,
        "versions": _versions(job, store, context, device),
    }


def _run_tune(job: Job, store: Store, context: JobContext, device: torch.device) -> None:
    data, where = load_data(job, context), _where(job, store, context, device)
    tensors, measured = tune_rate(store, job.inputs, job.identity, data, where)
    cost = {"tune_s": measured.seconds, "peak_memory": {"tune": measured.peak_bytes}}
    store.publish(
        job.key, _meta(job, store, context, device, cost), lambda folder: save_file(tensors, folder / WEIGHTS)
    )


def _run_evaluate(job: Job, store: Store, context: JobContext, device: torch.device) -> None:
    data, where = load_data(job, context), _where(job, store, context, device)
    found = evaluate_artifact(store, job.key, job.inputs, job.identity, data, where)
    write_atomic(store.record(job.key), dump_record(found))


_RUN: dict[str, Callable[..., None]] = {
    "prepare": _run_prepare,
    "distill": _run_distill,
    "tune": _run_tune,
    "evaluate": _run_evaluate,
}
