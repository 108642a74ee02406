"""A sweep becomes a graph of jobs: prepare -> distill -> evaluate. Pure."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.config import Protocol, Sweep
from bench.data import Dataset
from bench.errors import UserError
from bench.method import ARCHITECTURE, IPC, SEED, Method, Prepare
from bench.networks import Architecture

SCHEMA = 1
KINDS = ("prepare", "distill", "evaluate")
ANY = "any"  # the architecture of a method that uses none


@dataclass(frozen=True)
class Job:
    """One unit of work. The key hashes everything that moves the result, and nothing else."""

    kind: str
    key: str
    label: str
    identity: dict[str, Any]  # what the key hashes: plain JSON
    inputs: dict[str, str]  # role -> key of a job that must come first


def make(kind: str, label: str, identity: dict[str, Any], inputs: dict[str, str]) -> Job:
    content = {"schema": SCHEMA, "kind": kind, "inputs": inputs, **identity}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return Job(kind, hashlib.sha256(text.encode()).hexdigest()[:16], label, identity, inputs)


@dataclass(frozen=True)
class _Cell:
    """Where in the grid a result stands."""

    data: Dataset
    ipc: int
    architecture: Architecture
    seed: int

    def axes(self, uses: frozenset[str]) -> dict[str, Any]:
        """Only what moves the result enters the key, so one artifact serves all values of the rest."""
        return {
            "ipc": self.ipc if IPC in uses else None,
            "architecture": self.architecture.label if ARCHITECTURE in uses else ANY,
            "seed": self.seed if SEED in uses else 0,
        }


def plan(sweep: Sweep, datasets: Mapping[str, Dataset], protocol: Protocol) -> dict[str, Job]:
    """Every job of the sweep by key, inputs before their users. `datasets` is keyed by label."""
    jobs: dict[str, Job] = {}
    for spec in sweep.datasets:
        # a folder is what its label says: one labelled cifar10 gets the presets of CIFAR-10
        preset_name = spec.label if spec.name == "image_folder" else spec.name
        for entry in sweep.methods:
            for ipc in sweep.ipc:
                method = entry.resolve(preset_name, ipc)
                for architecture in sweep.distill.architectures:
                    for seed in sweep.distill.seeds:
                        cell = _Cell(datasets[spec.label], ipc, architecture, seed)
                        distill = _distill(jobs, entry.name, method, cell)
                        for student in sweep.evaluate.architectures:
                            job = _evaluate(distill, cell, student, protocol, sweep.evaluate.students)
                            jobs[job.key] = job
    return jobs


def _describe(axes: Mapping[str, Any]) -> str:
    words = [f"ipc {axes['ipc']}"] if axes["ipc"] else []
    words += [axes["architecture"]] if axes["architecture"] != ANY else []
    return " ".join([*words, f"seed {axes['seed']}"])


def _distill(jobs: dict[str, Job], name: str, method: Method, cell: _Cell) -> Job:
    inputs = _prepare(jobs, method.requires(), cell)
    axes = cell.axes(method.uses)
    identity = {
        "dataset": cell.data.fingerprint,
        "method": name,
        "version": method.version,
        "hyperparameters": dataclasses.asdict(method),  # type: ignore[call-overload]
        **axes,
    }
    job = make("distill", f"{name} {cell.data.label} {_describe(axes)}", identity, inputs)
    jobs[job.key] = job
    return job


def _prepare(jobs: dict[str, Job], required: Mapping[str, Prepare], cell: _Cell) -> dict[str, str]:
    """Plan prerequisites and what they stand on, each once. Returns {role: key}."""
    made: dict[str, str] = {}  # an expert's epochs are asked for one by one, and each stands on all before it

    def key(prepare: Prepare) -> str:
        written = repr(prepare)
        if written not in made:
            inputs = {role: key(needed) for role, needed in prepare.requires().items()}
            job = _prepare_job(prepare, cell, inputs)
            jobs[job.key] = job
            made[written] = job.key
        return made[written]

    return {role: key(prepare) for role, prepare in required.items()}


def _prepare_job(prepare: Prepare, cell: _Cell, inputs: dict[str, str]) -> Job:
    axes = cell.axes(prepare.uses)
    identity = {
        "dataset": cell.data.fingerprint,
        "block": type(prepare).__name__,
        "version": prepare.version,
        "values": dataclasses.asdict(prepare),  # type: ignore[call-overload]
        **axes,
    }
    return make("prepare", f"{prepare} {cell.data.label} {_describe(axes)}", identity, inputs)


def _evaluate(distill: Job, cell: _Cell, student: Architecture, protocol: Protocol, students: int) -> Job:
    identity = {
        "dataset": cell.data.fingerprint,
        "architecture": student.label,
        "protocol": protocol.model_dump(mode="json", exclude={"about"}),
        "students": students,
        "seed": cell.seed,
    }
    label = f"{distill.label} on {student.label}"
    if distill.identity["seed"] != cell.seed:
        label += f" (students {cell.seed})"
    return make("evaluate", label, identity, {"artifact": distill.key})


def check(sweep: Sweep, datasets: Mapping[str, Dataset]) -> None:
    """What only the data can tell. Raises UserError: a budget over a class, a network too deep."""
    labels: dict[str, str] = {}
    for label, data in datasets.items():
        if data.fingerprint in labels:
            raise UserError(
                f"datasets: {labels[data.fingerprint]} and {label} hold the same images: keep one"
            )
        labels[data.fingerprint] = label
        counts = data.train.labels.bincount(minlength=data.n_classes)
        size, smallest = int(counts.min()), int(counts.argmin())
        for ipc in sweep.ipc:
            if ipc > size:
                name = data.classes[smallest]
                raise UserError(f"ipc: {ipc} is more than class {name!r} of {label} has; use 1 to {size}")
        for key, wanted in (("distill", sweep.distill), ("evaluate", sweep.evaluate)):
            for architecture in wanted.architectures:
                try:
                    architecture.check(data.image_shape)
                except UserError as error:
                    raise UserError(f"{key}.architectures: {error} ({label})") from None
