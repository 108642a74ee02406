"""Checks of contributed results: files, keys and storage; some records are evaluated again."""

import math
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from bench.analysis.aggregate import grouped
from bench.core.distilled import load_distilled
from bench.core.errors import UserError, first_line
from bench.core.networks.architecture import parse_architecture
from bench.core.registry import method_names
from bench.core.teachers import teacher_state
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec
from bench.evaluation.scoring import EvaluationResult, EvaluationSetting, train_and_score
from bench.evaluation.storage import check_header, measure_storage, weight_bytes
from bench.execution.provenance import method_packages
from bench.execution.store import WEIGHTS, Store
from bench.interop.external import stored_cell
from bench.interop.recorded_choices import as_chosen, otherwise
from bench.planning.graph import (
    EvaluationSpec,
    Job,
    make_job,
    plan_evaluations,
    plan_sweep,
    recorded_hyperparameters,
)
from bench.planning.protocols import Protocol, load_protocol
from bench.planning.sweep import Sweep
from bench.planning.yaml_schema import list_faults
from bench.records.columns import Row, record_frame
from bench.records.naming import CELL
from bench.records.reader import PARQUET, read_records
from bench.records.schema import EXTERNAL_HYPERPARAMETERS, Record
from bench.records.to_sweep import (
    dataset_entry,
    is_external,
    rows_by_sweep,
    sweep_of,
)

LEAST_TOLERANCE = 0.02  # of accuracy: smaller differences are accepted between devices
STANDARD_ERRORS = 2  # standard errors of the difference
OTHER_KEY = "the key is another one today: a version of method or protocol, a default, or the first seed"


@dataclass(frozen=True)
class Check:
    """What was checked, how many records passed, and a line for each that did not."""

    name: str
    passed: int
    failures: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass
class Submission:
    """A result folder that somebody contributes.

    Args:
        directory: the folder.
        given: data sets by fingerprint, for those that are not where the artifacts say.
    """

    directory: Path
    given: Mapping[str, Dataset]

    def checks(self, sample: int) -> Iterator[Check]:
        """Run the checks and yield each as it ends; the slow one comes near the end.

        Args:
            sample: how many records are evaluated again.

        Raises:
            UserError: there is no record to check.
        """
        records, problems = read_records(self.directory)
        yield Check("record: schema, checksum, name", len(records), problems)
        yield _check("record: no experiment twice", records, _twice(records))
        sound = list(records)
        for name, complaint in (
            ("artifact: there, whole", self._damage),
            ("artifact: is what the record says", self._misdescribed),
            ("data set: found, same fingerprint", self._strange),
            ("storage: as counted in the artifact", self._miscounted),
        ):
            found = _check(name, sound, _complaints(sound, complaint))
            yield found
            failed = {line.partition(": ")[0] for line in found.failures}
            sound = [record for record in sound if record.key not in failed]
        missing = _not_installed(sound)
        yield _check("method: installed", sound, list(missing.values()))
        sound = [record for record in sound if record.method not in missing]
        jobs, failures = self._planned(sound)
        yield _check("key: as planned today", sound, failures)
        yield self._again([record for record in sound if record.key in jobs], jobs, sample)
        copied = (self.directory / PARQUET).exists()
        told = [f"{PARQUET}: reports would read it, whatever it says: delete it"] if copied else []
        yield Check("folder: no copy of the records", int(not copied), told)

    @cached_property
    def _store(self) -> Store:
        return Store(self.directory.resolve())

    # --- one record -----------------------------------------------------------------------------------------

    def _damage(self, record: Record) -> str | None:
        state = self._store.state("distill", record.artifact)
        return state if state != "" else f"artifacts/{record.artifact} is not there: contribute it too"

    def _misdescribed(self, record: Record) -> str | None:
        meta = self._store.meta(record.artifact)
        made = meta["identity"]
        if make_job("distill", "", made, meta["inputs"]).key != record.artifact:
            return f"artifacts/{record.artifact} does not have the key of its content"
        said = {
            "method": (record.method, made["method"]),
            "method_version": (record.method_version, made["version"]),
            "hyperparameters": (record.hyperparameters, recorded_hyperparameters(made)),
            "ipc": (record.ipc, made["ipc"]),
            "distill_arch": (record.distill_arch, made["architecture"]),
            "dataset_fingerprint": (record.dataset_fingerprint, made["dataset"]),
            "cost.prepare_s": (record.cost.prepare_s, meta["cost"]["prepare_s"]),
            "cost.distill_s": (record.cost.distill_s, meta["cost"]["distill_s"]),
            "cost.bookkeeping_s": (record.cost.bookkeeping_s, meta["cost"]["bookkeeping_s"]),
        }
        if "dataset_spec" in meta:
            said["dataset"] = (record.dataset, meta["dataset_spec"]["label"])
        wrong = [name for name, (recorded, stored) in said.items() if recorded != stored]
        return f"differs from artifacts/{record.artifact} in {', '.join(wrong)}" if wrong else None

    def _strange(self, record: Record) -> str | None:
        found = self._dataset(record)
        if isinstance(found, str):
            return found
        same = (found.image_shape, found.n_classes) == (record.image_shape, record.n_classes)
        return None if same else "image_shape or n_classes are not the data set's"

    def _miscounted(self, record: Record) -> str | None:
        try:
            distilled = load_distilled(path := self._store.artifact(record.artifact) / WEIGHTS)
            check_header(path, distilled, record.n_classes)
        except UserError as error:
            return str(error)
        counted = measure_storage(
            distilled, self._data(record), record.ipc, given=record.training.soft_labels
        )
        untold = {"label_floats"} if record.storage.label_floats is None else set()
        of_the_set = [name for name in type(counted).model_fields if name not in {"teacher_bytes", *untold}]
        names = [n for n in of_the_set if getattr(counted, n) != getattr(record.storage, n)]
        told = (f"{n} {getattr(record.storage, n)}, counted {getattr(counted, n)}" for n in names)
        return f"storage: {'; '.join(told)}" if names else None

    # --- data sets ------------------------------------------------------------------------------------------

    @cached_property
    def _datasets(self) -> dict[str, Dataset | str]:
        return dict(self.given)

    def _dataset(self, record: Record) -> Dataset | str:
        """The data set, or why it was not found; it is looked for where the artifact says it is."""
        wanted = record.dataset_fingerprint
        if wanted not in self._datasets:
            self._datasets[wanted] = self._find(record)
        return self._datasets[wanted]

    def _find(self, record: Record) -> Dataset | str:
        hint = f"give the data set {record.dataset} with --dataset"
        try:
            spec = DatasetSpec.model_validate(self._store.meta(record.artifact)["dataset_spec"])
            found = read_dataset(prepare_dataset(spec.model_copy(update={"download": False})))
        except (KeyError, ValidationError):
            return f"the artifact does not say where its data set is: {hint}"
        except UserError as error:
            return f"{error}; or {hint}"
        if found.fingerprint != record.dataset_fingerprint:
            return f"its data set has the fingerprint {found.fingerprint} here: {hint}"
        return found

    def _data(self, record: Record) -> Dataset:
        found = self._dataset(record)
        assert isinstance(found, Dataset), "only records whose data set was found come here"
        return found

    # --- keys -----------------------------------------------------------------------------------------------

    def _planned(self, records: Sequence[Record]) -> tuple[dict[str, Job], list[str]]:
        """The jobs that this ddbench plans for these records, by key, and a line for each other record."""
        jobs: dict[str, Job] = {}
        failures = []
        by_key = {record.key: record for record in records}
        cells = grouped(record_frame(records), CELL) if records else ()
        for rows in (
            rows for _, cell in cells for rows in rows_by_sweep(cast(list[Row], cell.to_dict("records")))
        ):
            held = [by_key[row["key"]] for row in rows]
            why = OTHER_KEY
            try:
                planned = self._plan(rows, held)
            except (UserError, ValidationError) as error:
                planned, why = (
                    {},
                    str(error) if isinstance(error, UserError) else "; ".join(list_faults(error)),
                )
            for record in held:
                if record.key not in planned:
                    failures.append(f"{record.key}: {why}")
                elif wrong := _unlike(record, planned[record.key]):
                    failures.append(f"{record.key}: differs from what its key says in {', '.join(wrong)}")
                else:
                    jobs[record.key] = planned[record.key]
        return jobs, failures

    def _plan(self, rows: Sequence[Row], records: Sequence[Record]) -> dict[str, Job]:
        """The jobs for records that differ in their seed only."""
        first = records[0]
        found = self._data(first)
        meta = self._store.meta(first.artifact)
        if is_external(rows[0]):
            return self._plan_foreign(records, found)
        entry = dataset_entry(first.dataset, meta.get("dataset_spec"))
        sweep = Sweep.model_validate(sweep_of(rows, entry))
        return plan_sweep(sweep, {spec.label: found for spec in sweep.datasets}, sweep.protocols)

    def _plan_foreign(self, records: Sequence[Record], found: Dataset) -> dict[str, Job]:
        """The jobs for sets from elsewhere, which are only evaluated."""
        first = records[0]
        network = parse_architecture(first.eval_arch)
        spec = EvaluationSpec(network, load_protocol(first.protocol), len(first.accuracies), *_besides(first))
        ordered = sorted(records, key=lambda record: record.seed)
        metas = [self._store.meta(record.artifact) for record in ordered]
        sets = [make_job("distill", meta["label"], meta["identity"], meta["inputs"]) for meta in metas]
        cells = [stored_cell(self._store, found, record) for record in ordered]
        jobs: dict[str, Job] = {}
        plan_evaluations(jobs, spec, cells, sets)
        return jobs

    # --- accuracies -----------------------------------------------------------------------------------------

    def _again(self, records: Sequence[Record], jobs: Mapping[str, Job], sample: int) -> Check:
        """Train the students of some records again; every call chooses the same records."""
        ordered = sorted(records, key=lambda record: record.key)
        drawn = random.Random(0).sample(ordered, min(sample, len(ordered)))
        failures, notes = list[str](), list[str]()
        for record in drawn:
            try:
                result = self._examine(record, jobs[record.key])
            except UserError as error:
                failures.append(f"{record.key}: {error}")
                continue
            if told := otherwise(record, result.training):
                failures.append(f"{record.key}: {'; '.join(told)}")
                continue
            again = result.scores.accuracies
            allowed = tolerance(again, self._data(record).n_test)
            claimed, measured = mean(record.accuracies), mean(again)
            line = (
                f"{record.key}: {record.method} on {record.eval_arch}: claimed {100 * claimed:.1f} %, "
                f"measured {100 * measured:.1f} %, tolerance {100 * allowed:.1f}"
            )
            (notes if abs(claimed - measured) <= allowed else failures).append(line)
        return Check(f"accuracy: {len(drawn)} of {len(ordered)} evaluated again", len(notes), failures, notes)

    def _examine(self, record: Record, job: Job) -> EvaluationResult:
        """Train as many students again, at the record's learning rate if the protocol has several.

        Raises UserError if the teacher is not among the artifacts, or the rate not among the protocol's.
        """
        teacher = None
        if key := job.inputs.get("teacher"):
            if state := self._store.state("prepare", key):
                raise UserError(state)
            if state is not None:
                raise UserError(f"artifacts/{key}, the teacher, is not there: contribute it too")
            teacher = load_file(self._store.artifact(key) / WEIGHTS)
        needed = {} if record.training.labels == "soft" else teacher_state(teacher or {})
        if record.storage.teacher_bytes != (counted := weight_bytes(needed)):
            raise UserError(f"storage: teacher_bytes {record.storage.teacher_bytes}, counted {counted}")
        torch.set_num_threads(min(record.cost.cpus or 1, os.cpu_count() or 1))
        on_gpu = record.cost.gpus > 0 and torch.cuda.is_available()
        device = torch.device("cuda:0" if on_gpu else "cpu")
        setting = EvaluationSetting(
            data=self._data(record),
            architecture=parse_architecture(record.eval_arch),
            protocol=as_chosen(Protocol(about="", **job.identity["protocol"]), record),
            students=len(record.accuracies),
            seed=record.seed,
            device=device,
            teacher=teacher,
        )
        distilled = load_distilled(self._store.artifact(record.artifact) / WEIGHTS, device)
        return train_and_score(distilled, setting)


def _unlike(record: Record, job: Job) -> list[str]:
    """The names of the fields in which a record differs from the job that has its key."""
    said = {
        "artifact": (record.artifact, job.inputs["artifact"]),
        "seed": (record.seed, job.identity["seed"]),
        "protocol_version": (record.protocol_version, job.identity["protocol"]["version"]),
    }
    return [name for name, (recorded, planned) in said.items() if recorded != planned]


def tolerance(again: Sequence[float], n_test: int) -> float:
    """How far two mean accuracies of students may differ and still agree.

    On the same kind of CPU, a student depends only on its seeds, and the means are equal. Another device
    rounds sums of floats differently and training amplifies this, so that students differ as if their seeds
    did. Then the standard error of the difference is sqrt(2 / students) times the standard deviation of one
    student. The deviation is that of the students trained here, because a claimed one could be made up; as
    few students do not determine it well, it is at least the binomial deviation of an accuracy on the test
    split. Two standard errors are allowed, and at least two points, about the effect of other library
    versions.

    Args:
        again: accuracies of the students trained here, fractions.
        n_test: images of the test split.

    Returns:
        The allowed difference, a fraction.
    """
    level = mean(again)
    deviations = [stdev(again)] if len(again) > 1 else []
    one = max([math.sqrt(level * (1 - level) / n_test), *deviations])
    return max(LEAST_TOLERANCE, STANDARD_ERRORS * one * math.sqrt(2 / len(again)))


# --- lines --------------------------------------------------------------------------------------------------


def _complaints(records: Sequence[Record], complaint: Callable[[Record], str | None]) -> list[str]:
    return [f"{record.key}: {why}" for record in records if (why := _guarded(complaint, record)) is not None]


def _guarded(complaint: Callable[[Record], str | None], record: Record) -> str | None:
    try:
        return complaint(record)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # from a meta.json made by hand
        return f"artifacts/{record.artifact}: {first_line(error)}"


def _check(name: str, records: Sequence[Record], failures: list[str]) -> Check:
    return Check(name, len(records) - len(failures), failures)


def _not_installed(records: Sequence[Record]) -> dict[str, str]:
    """{method: how to install it} for methods that are not installed."""
    known, found = method_names(), {}
    for record in records:
        if record.method not in known and record.hyperparameters.keys() != EXTERNAL_HYPERPARAMETERS:
            packages = method_packages(record.versions)
            how = f"pip install {' '.join(packages)}" if packages else "name its file with --plugin"
            found[record.method] = f"method {record.method} is not installed: {how}"
    return found


def _twice(records: Sequence[Record]) -> list[str]:
    """A line for each record that repeats the experiment of another one."""
    found: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for r in records:
        spec = (r.artifact, r.eval_arch, r.protocol, r.protocol_version, r.seed, len(r.accuracies))
        found[(*spec, *_besides(r))].append(r.key)
    return [f"{key}: is the experiment of {keys[0]}" for keys in found.values() for key in keys[1:]]


def _besides(r: Record) -> tuple[tuple[float, ...], bool]:
    """What the evaluation recorded in addition: the fractions of a curve, and whether it has snapshots."""
    return tuple(point.fraction for point in r.metrics.curve), r.metrics.snapshots is not None
