"""What the jobs of a sweep take, from shapes alone: operations and memory, without running or allocating."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.dry import META, DryRun, Piece
from bench.core.errors import UserError, first_line
from bench.core.networks.architecture import parse_architecture
from bench.core.operations import JobOperations, OperationCounter
from bench.core.training import in_pieces
from bench.core.transfer import meta_as
from bench.data.dataset import Dataset
from bench.data.shapes import DataShape, outline_dataset
from bench.evaluation.scoring import EvaluationSetting
from bench.evaluation.students import train_students
from bench.execution.budget import Counted, JobCounter
from bench.execution.session import compute_budget
from bench.planning.checks import check_data
from bench.planning.estimate import SETS
from bench.planning.graph import HOLDOUT, Job, plan_sweep
from bench.planning.protocols import Protocol
from bench.planning.sweep import Sweep, load_sweep

_ATEN = torch.ops.aten
READ_BY_ROW = ("experts/", "interpolated/")  # prerequisites of which a part is on the device at a time


class GroupedCounter(OperationCounter):
    """Counts a kernel's gradient in groups as what it is: torch's formula counts each group with all others.

    Records keep torch's formula, so that budgets buy the steps that they always bought.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.flops
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func._overloadpacket is _ATEN.convolution_backward and args[9] > 1 and args[10][1]:
            both = self.flops - before
            g, weight = args[0], args[2]
            to_images = 2 * len(g) * g[0, 0].numel() * weight.numel() if args[10][0] else 0
            self.flops = before + to_images + (both - to_images) // args[9]
        return out


@dataclass(frozen=True)
class Taken:
    """What one sort of job takes."""

    operations: float
    peak: int  # bytes on the device, the training set included
    largest: Piece


@dataclass(frozen=True)
class DryRow:
    """Jobs of one sort."""

    kind: str
    label: str  # of the first
    jobs: int
    operations: float  # of all of them
    peak: int
    largest: Piece


class DryCounter(JobCounter):
    """Counts operations and memory of all jobs on one data set, on torch's meta device.

    Args:
        data: the data set; its images need no numbers.
        kind: of the device that it stands for, "cpu" or "cuda".
    """

    def __init__(self, data: Dataset, kind: str) -> None:
        super().__init__(data, torch.device(kind))
        self.taken: dict[str, Taken] = {}  # by sort
        train = data.train
        self._base = train.images.nbytes + train.labels.nbytes

    def take(self, key: str) -> tuple[str, Taken]:
        """The sort of a job, and what it takes. Raises what the method raises."""
        job = self.jobs[key]
        if job.kind in ("tune", "evaluate"):
            return self._scored(job)
        sort = self.sort(key)
        if sort not in self.taken:
            self._known[sort] = self.count_on(META, key)
        taken = self.taken[sort]
        return sort, dataclasses.replace(taken, operations=self._known[sort].sum(self.steps(key)))

    def _note(self, sort: str, found: Counted) -> None:
        self._known[sort] = found  # and not in the cache, which is of records' counts

    def counting(self, period: int = 0, stride: int = 1) -> JobOperations:
        """See `JobCounter`."""
        return JobOperations(period, stride, cut=True, counter=GroupedCounter())

    def count_on(self, place: torch.device, key: str) -> Counted:
        """See `JobCounter`; it notes the memory too."""
        held = sum(
            tensor.nbytes
            for role, needed in self.jobs[key].inputs.items()
            if not role.startswith(READ_BY_ROW)
            for tensor in self._tensors(META, needed).values()
        )
        with DryRun() as dry, meta_as(self.device.type):
            found = self._run(META, key)
        self.taken[self.sort(key)] = Taken(0.0, self._base + held + dry.peak, dry.largest)
        return found

    def _scored(self, job: Job) -> tuple[str, Taken]:
        """The students of an evaluation, or of all rates that a hold-out tries, and their scoring."""
        identity, made = job.identity, self.sort(job.inputs["artifact"])
        values = {name: value for name, value in identity.items() if name not in ("seed", "resolved")}
        students, distilled = json.dumps([job.kind, values], sort_keys=True), self.sets[made]
        with torch.no_grad():
            images, targets = distilled.decode()
        variants = distilled.variants()
        kinds = (distilled.tiles, type(distilled.preprocess), None if variants is None else variants.shape)
        alike = f"{students} {len(images)} {targets.ndim} {kinds}"
        if alike not in self.taken:
            self.taken[alike] = self._train(job, distilled)
        return f"{students} {made}", self.taken[alike]

    def _train(self, job: Job, distilled: DistilledDataset) -> Taken:
        identity, teacher = job.identity, job.inputs.get("teacher")
        protocol = Protocol(about="", **identity["protocol"])
        setting = EvaluationSetting(
            data=self.data,
            architecture=parse_architecture(identity["architecture"]),
            protocol=protocol,
            students=identity["students"],
            seed=0,
            device=META,
            teacher=self._tensors(META, teacher) if teacher else None,
        )
        tunes = job.kind == "tune"
        students = identity["students"] * (max(1, len(protocol.rates)) if tunes else 1)
        scored = round(HOLDOUT * len(self.data.train.labels)) if tunes else self.data.n_test
        operations = self.counting()
        with DryRun() as dry, meta_as(self.device.type), operations.running():
            found = train_students(
                lambda i: setting.build(random.generator(0, "student", i, "init")),
                setting.training_set(distilled),
                [random.generator(0, "student", i, "order") for i in range(students)],
            )
            (trained,) = found.values()
            see = distilled.preprocess
            with torch.inference_mode():
                images = torch.empty(scored, *self.data.image_shape, dtype=torch.uint8, device=META)
                in_pieces(lambda x: trained.logits(see(x)).transpose(0, 1), images)
        rounds = SETS if identity.get("snapshots") else 1
        if tunes:
            rounds = -(-protocol.trials // max(1, len(protocol.rates)))
        return Taken(operations.sum * rounds, self._base + dry.peak, dry.largest)


@dataclass(frozen=True)
class DryPlan:
    """A sweep as a dry run sees it."""

    sweep: Sweep
    jobs: Mapping[str, Job]
    datasets: Mapping[str, Dataset]  # by fingerprint

    @classmethod
    def open(cls, path: Path, overrides: list[str], shape: DataShape | None) -> "DryPlan":
        """Read and check a sweep file; shapes stand for files that are not here. Raises UserError."""
        sweep = load_sweep(path, overrides)
        try:
            data = {spec.label: outline_dataset(spec, shape) for spec in sweep.datasets}
            check_data(sweep, data)
            budget = compute_budget(sweep, data, lambda label: None)
            jobs = plan_sweep(sweep, data, sweep.protocols, budget.fit if budget else None)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return cls(sweep, jobs, {one.fingerprint: one for one in data.values()})

    def rows(self, tell: Callable[[str], None]) -> tuple[list[DryRow], list[str]]:
        """A row for each sort of job, and a line on each job that cannot be counted.

        Args:
            tell: hears the label of what is counted.
        """
        kind = "cuda" if self.sweep.resources.gpus else "cpu"
        counters = {name: DryCounter(data, kind) for name, data in self.datasets.items()}
        rows: dict[tuple[str, str], DryRow] = {}
        problems: dict[str, str] = {}  # by key
        for key, job in self.jobs.items():
            counter = counters[job.identity["dataset"]]
            counter.jobs[key] = job
            if any(needed in problems for needed in job.inputs.values()):
                problems[key] = ""
                continue
            tell(job.label)
            try:
                sort, taken = counter.take(key)
            except Exception as error:  # whatever a method raises
                said = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                problems[key] = f"cannot be counted: {job.label}: {said}{first_line(error)}"
                continue
            row = rows.get((job.kind, sort))
            rows[job.kind, sort] = DryRow(
                job.kind,
                row.label if row else job.label,
                1 + (row.jobs if row else 0),
                taken.operations + (row.operations if row else 0),
                taken.peak,
                taken.largest,
            )
        return list(rows.values()), [line for line in dict.fromkeys(problems.values()) if line]
