"""Distilled sets from elsewhere: stored as artifacts in a result folder, and scored like our own."""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.core.distilled import load_distilled
from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from bench.core.words import check_name, plain_text
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.execution.provenance import source_commit, versions
from bench.execution.session import Session, dataset_place
from bench.execution.store import WEIGHTS, Store
from bench.interop.importers.read import read_set
from bench.interop.importers.request import Imported, ImportRequest
from bench.planning.graph import Cell, EvaluationSpec, Job, make_job, plan_evaluations
from bench.planning.protocols import load_protocols
from bench.planning.resources import Resources
from bench.planning.yaml_schema import describe_faults, list_faults
from bench.planning.yaml_text import parse_yaml
from bench.records.schema import ANY_ARCHITECTURE, Record

ADOPTION_VERSION = 1  # raised when the same file becomes another artifact


@dataclass(frozen=True)
class NamedDataset:
    """A data set as named on the command line, and where its images are stored."""

    spec: DatasetSpec
    path: Path
    data: Dataset

    @classmethod
    def open(cls, text: str, argument: str = "--dataset") -> "NamedDataset":
        """Read a name, a folder of images, or an entry of a sweep file: {name: cifar10, data_dir: data}.

        Raises UserError, which begins with the argument that gave the text, if there is no such data set.
        """
        try:
            spec = DatasetSpec.model_validate(_entry(text))
            path = prepare_dataset(spec)
        except ValidationError as error:
            raise UserError(f"{argument}: {describe_faults(list_faults(error))}") from None
        except UserError as error:
            raise UserError(f"{argument}: {error}") from None
        return cls(spec, path, read_dataset(path))


def _entry(text: str) -> Any:
    """What a text stands for; the path of a folder stands for itself, be it `2024` or `birds #1`."""
    try:
        return text if os.path.isdir(os.path.expanduser(text)) else parse_yaml(text)
    except UserError as error:
        written = plain_text(text)
        raise UserError(f"{written!r} {error}: write a name, a folder or {{name: ..., path: ...}}") from None


@dataclass(frozen=True)
class Adopted:
    """An imported set and the job whose artifact it is."""

    imported: Imported
    job: Job
    cell: Cell


def adopt_sets(
    store: Store, request: ImportRequest, source: NamedDataset, name: str | None = None
) -> list[Adopted]:
    """Store the sets of a file as artifacts, one for each of its experiments; those that exist are kept.

    The key hashes the content of the set, and not the path of the file.

    Args:
        store: the result folder.
        request: the file, and what it does not say of itself.
        source: the data set that the sets were made from.
        name: the method's name in the records; by default the file's name.

    Returns:
        The sets and their jobs.

    Raises:
        UserError: the file cannot be read or does not fit the data set.
    """
    found = []
    try:
        method = check_name(name or request.path.name)
    except UserError as error:
        raise UserError(f"the name of the set {error}: give another with --name") from None
    for one in read_set(request, source.data):
        # files do not say which network they were distilled with: the identity has "any" instead of convnet
        factor = getattr(one.distilled, "factor", 1)
        cell = Cell(source.data, one.ipc, parse_architecture("convnet"), one.seed, factor=factor)
        identity = {
            "dataset": source.data.fingerprint,
            "method": method,
            "version": ADOPTION_VERSION,
            "hyperparameters": {"format": one.format, "sha256": _content(one)},
            "ipc": one.ipc,
            "architecture": ANY_ARCHITECTURE,
            "seed": one.seed,
        }
        label = f"{identity['method']} {source.data.label} ipc {one.ipc} seed {one.seed}"
        job = make_job("distill", label, identity, {})
        if store.state(job.kind, job.key) is not None:  # missing or damaged
            store.discard(job.kind, job.key)
            store.publish(job.key, _meta(job, one, source), functools.partial(_save, one))
        found.append(Adopted(one, job, cell))
    return found


def stored_cell(store: Store, data: Dataset, record: Record) -> Cell:
    """The cell of a record of a stored set. Raises UserError if the set is damaged."""
    distilled = load_distilled(store.artifact(record.artifact) / WEIGHTS)
    network = parse_architecture(record.eval_arch)
    return Cell(data, record.ipc or 1, network, record.seed, factor=getattr(distilled, "factor", 1))


def _save(one: Imported, folder: Path) -> None:
    one.distilled.save(folder / WEIGHTS)


def _content(one: Imported) -> str:
    with tempfile.TemporaryDirectory() as folder:
        _save(one, Path(folder))
        return hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest()[:16]


def _meta(job: Job, one: Imported, source: NamedDataset) -> dict[str, Any]:
    """The metadata of a distillation, without its cost, which is not known."""
    return {
        "kind": job.kind,
        "label": job.label,
        "identity": job.identity,
        "inputs": job.inputs,
        "classes": list(source.data.classes),
        "dataset_spec": json.loads(source.spec.model_dump_json()),
        "versions": versions() | {"commit": source_commit()},
        "source": {"file": one.source, "published": one.published, "notes": one.notes},
        "snapshots": [],
        "cost": {
            "prepare_s": 0.0,
            "prerequisites_s": {},
            "distill_s": None,
            "bookkeeping_s": None,
            "peak_memory": {},
            "device": None,
            "cpus": 0,
            "gpus": 0.0,
            "exclusive": True,
            "warm": False,
            "cold": [],
        },
    }


def evaluation_specs(
    source: NamedDataset, architectures: Sequence[str], protocols: Sequence[str], students: int
) -> list[EvaluationSpec]:
    """What to evaluate: each architecture under each protocol, both by name.

    Raises UserError for an unknown name, and for an architecture that cannot take the images.
    """
    if students < 1:
        raise UserError(f"--students {students}: must be at least 1")
    parsed = [parse_architecture(name) for name in architectures]
    for architecture in parsed:
        architecture.check(source.data.image_shape)
    chosen = [p for name in protocols for p in load_protocols(name)]
    return [
        EvaluationSpec(architecture, protocol, students) for architecture in parsed for protocol in chosen
    ]


def external_session(
    store: Store,
    adopted: Sequence[Adopted],
    source: NamedDataset,
    specs: Sequence[EvaluationSpec],
    resources: Resources,
) -> Session:
    """A session with the jobs that score imported sets; finished jobs are not run again."""
    jobs = {a.job.key: a.job for a in adopted}
    for spec in specs:
        plan_evaluations(jobs, spec, [a.cell for a in adopted], [a.job for a in adopted])
    datasets = {source.data.fingerprint: dataset_place(source.spec, source.path)}
    return Session(resources, jobs, store, [], datasets)
