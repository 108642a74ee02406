"""From a sweep to its graph of jobs: prepare -> distill -> tune -> evaluate. Runs nothing."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import is_pydantic_dataclass

from bench.core.method import (
    ARCHITECTURE,
    IPC,
    SEED,
    Method,
    Prerequisite,
    hyperparameters,
    images_in_one,
    learns_labels,
)
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.paper_constants import require_paper_normalisation, whitening_eps
from bench.core.precision import DEFAULT, Precision
from bench.core.preprocess import NORMALISE, PAPER, WHITENINGS
from bench.core.registry import block_class
from bench.data.dataset import Dataset
from bench.data.spec import preset_name
from bench.planning.protocols import Protocol
from bench.planning.resolve import resolved
from bench.planning.sweep import MethodEntry, Sweep
from bench.records.naming import without_regime
from bench.records.schema import ANY_ARCHITECTURE

KEY_SCHEMA = 2
JOB_KINDS = ("prepare", "distill", "tune", "evaluate")
HOLDOUT = 0.1  # fraction of the training set on which a learning rate is chosen


@dataclass(frozen=True)
class Job:
    """One unit of work. Its key hashes everything that affects the result, and nothing else."""

    kind: str  # one of JOB_KINDS
    key: str  # 16 hex digits
    label: str  # for people
    identity: dict[str, Any]  # what the key hashes, as plain JSON
    inputs: dict[str, str]  # {role: key} of the jobs whose results it needs


def make_job(kind: str, label: str, identity: dict[str, Any], inputs: dict[str, str]) -> Job:
    """Make a job and its key; the label is not part of the key.

    Raises:
        ValueError: for an identity with NaN or an infinity.
    """
    content = {"schema": KEY_SCHEMA, "kind": kind, "inputs": inputs, **identity}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return Job(kind, hashlib.sha256(text.encode()).hexdigest()[:16], label, identity, inputs)


@dataclass(frozen=True)
class Cell:
    """A place in the grid of a sweep."""

    data: Dataset
    ipc: int
    architecture: Architecture
    seed: int
    preprocess: str = NORMALISE  # of the images to distill on; evaluations do not depend on it
    experts_per_seed: bool = False  # a bank of experts for each seed
    precision: Precision = DEFAULT  # of what is computed on the way to the set, or of a teacher
    factor: int = 1  # into how many images a side each stored one is cut; rules of protocols may ask for it

    def axes(self, depends_on: frozenset[str]) -> dict[str, Any]:
        """The part of a job's identity that gives its place in the grid.

        Args:
            depends_on: IPC, ARCHITECTURE, SEED: what affects the result. The rest is left out of the key, so
                that one artifact serves all its values.
        """
        found: dict[str, Any] = {
            "ipc": self.ipc if IPC in depends_on else None,
            "architecture": self.architecture.label if ARCHITECTURE in depends_on else ANY_ARCHITECTURE,
            "seed": self.seed if SEED in depends_on else 0,
        }
        if ARCHITECTURE in depends_on and self.precision != DEFAULT:  # it is that of networks
            found["precision"] = self.precision
        if self.preprocess == NORMALISE:
            return found
        if self.preprocess == PAPER:
            data = self.data
            known = require_paper_normalisation(data.label, data.name, data.image_shape[0])
            found["normalisation"] = known.header()
        return found | {"preprocess": self.preprocess}

    def sizes(self, depends_on: frozenset[str]) -> list[int]:
        """Images of the training set, and of a set of plain images of this ipc."""
        return [len(self.data.train.labels), *([self.ipc * self.data.n_classes] if IPC in depends_on else [])]


@dataclass(frozen=True)
class EvaluationSpec:
    """How a distilled set is scored."""

    student: Architecture
    protocol: Protocol
    students: int  # how many are trained
    curve: tuple[float, ...] = ()  # fractions of the training at which accuracy is recorded too
    snapshots: bool = False  # also score the set as it was during the distillation

    @property
    def label(self) -> str:
        """The students, and their labels where the protocol is one of several label regimes."""
        regime = without_regime(self.protocol.name) != self.protocol.name
        return f"{self.student.label}, {self.protocol.labels} labels" if regime else self.student.label

    def identity(self, cell: Cell, n_images: int) -> dict[str, Any]:
        """What affects the accuracies of a cell's set, of about `n_images`."""
        identity = {
            "dataset": cell.data.fingerprint,
            "architecture": self.student.label,
            "protocol": self.protocol.model_dump(mode="json", exclude={"about"}),
            "students": self.students,
            "seed": cell.seed,
        }
        return resolved(identity, self.student, [n_images])

    def resolved(self, cell: Cell, ipc: int | None) -> "EvaluationSpec":
        """With the rules of its protocol applied, for a cell and a set of `ipc` images per class."""
        name = preset_name(cell.data.name, cell.data.label)
        return dataclasses.replace(self, protocol=self.protocol.resolve(name, self.student, ipc, cell.factor))

    def extras(self) -> dict[str, Any]:
        """What is recorded beside the accuracies; empty by default, so that it changes no other keys."""
        extras: dict[str, Any] = {"curve": list(self.curve), "snapshots": self.snapshots}
        return {name: value for name, value in extras.items() if value}


# a method with the steps that it takes in a cell, where a budget decides; None: it is left out
Fit = Callable[[MethodEntry, Method, Cell], Method | None]


def plan_sweep(
    sweep: Sweep, datasets: Mapping[str, Dataset], protocols: Sequence[Protocol], fit: Fit | None = None
) -> dict[str, Job]:
    """Plan all jobs of a sweep.

    Args:
        sweep: the checked sweep file.
        datasets: its data sets by label.
        protocols: those that its `evaluate.protocol` names.
        fit: of a sweep with a budget.

    Returns:
        The jobs by key; a job comes after its inputs.

    Raises:
        UserError: for hyper-parameters that a preset and the sweep together make invalid.
    """
    jobs: dict[str, Job] = {}
    for spec in sweep.datasets:
        for entry in sweep.methods:
            seeds = sweep.distill.seeds if entry.seeds is None else range(entry.seeds)
            for ipc in sweep.ipc:
                for architecture in sweep.distill.architectures:
                    cells = [Cell(datasets[spec.label], ipc, architecture, seed) for seed in seeds]
                    plan_sets(jobs, sweep, protocols, entry, preset_name(spec.name, spec.label), cells, fit)
    return jobs


def plan_sets(
    jobs: dict[str, Job],
    sweep: Sweep,
    protocols: Sequence[Protocol],
    entry: MethodEntry,
    presets: str,
    cells: Sequence[Cell],
    fit: Fit | None = None,
) -> list[Job]:
    """Add the sets of a method and their evaluations to `jobs`, in cells that differ in their seed only.

    `presets` is the data set whose presets hold. Returns the distillation of each cell; none where the budget
    does not pay for a step.
    """
    ipc = cells[0].ipc
    chosen, preprocess = entry.resolve(presets, ipc), entry.preprocess(presets, ipc)
    cells = [dataclasses.replace(cell, factor=images_in_one(chosen)) for cell in cells]
    distilled_on = [
        dataclasses.replace(
            cell,
            preprocess=preprocess,
            precision=entry.precision(presets, ipc, chosen, sweep.distill.precision),
            experts_per_seed=sweep.distill.experts_per_seed,
        )
        for cell in cells
    ]
    method = fit(entry, chosen, distilled_on[0]) if fit else chosen
    if method is None:
        return []
    sets = [plan_distillation(jobs, entry.name, method, cell) for cell in distilled_on]
    for evaluation in evaluations_of(sweep, protocols, method):
        plan_evaluations(jobs, evaluation, cells, sets)
    return sets


def evaluations_of(sweep: Sweep, protocols: Sequence[Protocol], method: Method) -> list[EvaluationSpec]:
    """Without those for stored labels where hard ones are asked for too, and the method stores no others."""
    scored = sweep.evaluate
    evaluations = [
        EvaluationSpec(student, protocol, scored.students, scored.curve, scored.snapshots)
        for student in scored.architectures
        for protocol in protocols
    ]
    hard = {without_regime(e.protocol.name) for e in evaluations if e.protocol.labels == "hard"}
    return [
        e
        for e in evaluations
        if learns_labels(method)
        or e.protocol.labels != "stored"
        or without_regime(e.protocol.name) not in hard
    ]


def _describe(axes: Mapping[str, Any]) -> str:
    words = [f"ipc {axes['ipc']}"] if axes["ipc"] else []
    words += [axes["architecture"]] if axes["architecture"] != ANY_ARCHITECTURE else []
    words += [axes[name] for name in ("preprocess", "precision") if name in axes]
    return " ".join([*words, f"seed {axes['seed']}"])


def plan_distillation(jobs: dict[str, Job], name: str, method: Method, cell: Cell) -> Job:
    """Add a distillation and its prerequisites to `jobs`, inputs first; returns its own job."""
    shared = method.requires()
    required = _banks_of_seed(shared, cell.seed) if cell.experts_per_seed else shared
    inputs = _prepare(jobs, required, cell) | _whitening(jobs, cell)
    axes = cell.axes(method.depends_on)
    asked = {"experts_per_seed": True} if required is not shared else {}
    identity = {
        "dataset": cell.data.fingerprint,
        "method": name,
        "version": method.version,
        "hyperparameters": hyperparameters(method),
        **asked,
        **axes,
    }
    label = f"{name} {cell.data.label} {_describe(axes)}"
    sizes = cell.sizes(method.depends_on)
    job = make_job("distill", label, resolved(identity, cell.architecture, sizes), inputs)
    jobs[job.key] = job
    return job


def _banks_of_seed(required: dict[str, Prerequisite], seed: int) -> dict[str, Prerequisite]:
    """The prerequisites with the bank of this seed; unchanged where none draws from a bank."""
    if not any("bank" in prepare.__dataclass_fields__ for prepare in required.values()):
        return required
    return {
        role: dataclasses.replace(prepare, bank=seed) if "bank" in prepare.__dataclass_fields__ else prepare
        for role, prepare in required.items()
    }


def recorded_hyperparameters(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the method of a distillation, and what the sweep asked for beside them."""
    beside = ("preprocess", "experts_per_seed", "precision")
    return {**identity["hyperparameters"], **{name: identity[name] for name in beside if name in identity}}


def _prepare(jobs: dict[str, Job], required: Mapping[str, Prerequisite], cell: Cell) -> dict[str, str]:
    """Plan prerequisites and those that they require in turn, each once. Returns {role: key}."""
    # An expert's epochs are prerequisites one by one, and each requires the one before it; without this dict
    # the same job would be planned again along every path to it.
    made: dict[str, str] = {}

    def key(prepare: Prerequisite) -> str:
        written = repr(prepare)
        if written not in made:
            inputs = {role: key(needed) for role, needed in prepare.requires().items()}
            job = _prepare_job(prepare, cell, inputs | _whitening(jobs, cell))
            jobs[job.key] = job
            made[written] = job.key
        return made[written]

    return {role: key(prepare) for role, prepare in required.items()}


def _whitening(jobs: dict[str, Job], cell: Cell) -> dict[str, str]:
    """{"whitening": key} for a cell with whitened images, else empty."""
    if cell.preprocess not in WHITENINGS:
        return {}
    kind = WHITENINGS[cell.preprocess]
    needed = {"whitening": block_class("Whitening")(kind=kind, eps=whitening_eps(kind, cell.data.label))}
    return _prepare(jobs, needed, dataclasses.replace(cell, preprocess=NORMALISE, precision=DEFAULT))


def _written(prepare: Prerequisite) -> dict[str, Any]:
    """The values of a prerequisite; a model leaves out what came after the first keys, at its default."""
    values = dataclasses.asdict(prepare)
    if not is_pydantic_dataclass(type(prepare)):
        return values
    kept = TypeAdapter(type(prepare)).dump_python(prepare).keys()
    return {name: value for name, value in values.items() if name in kept}


def _prepare_job(prepare: Prerequisite, cell: Cell, inputs: dict[str, str]) -> Job:
    axes = cell.axes(prepare.depends_on)
    identity = {
        "dataset": cell.data.fingerprint,
        "block": type(prepare).__name__,
        "version": prepare.version,
        "values": _written(prepare),
        **axes,
    }
    label = f"{prepare} {cell.data.label} {_describe(axes)}"
    sizes = cell.sizes(prepare.depends_on)
    return make_job("prepare", label, resolved(identity, cell.architecture, sizes), inputs)


def plan_evaluations(
    jobs: dict[str, Job], spec: EvaluationSpec, cells: Sequence[Cell], sets: Sequence[Job]
) -> None:
    """Plan the evaluations of one method's sets, with the teacher and what a hold-out chooses.

    Args:
        jobs: to which the planned jobs are added.
        spec: how the sets are scored.
        cells: that differ in their seed only. Rate and soft labels are chosen on the set of the first one.
        sets: the distillation job of each cell.
    """
    spec = spec.resolved(cells[0], sets[0].identity["ipc"])
    shared = plan_teacher(jobs, spec, cells[0])
    n_images = cells[0].sizes(frozenset({IPC} if sets[0].identity["ipc"] else ()))[-1]
    if spec.protocol.trials:
        identity = spec.identity(cells[0], n_images) | {"fraction": HOLDOUT}
        chosen = "learning rate" if spec.protocol.rates else "soft labels"
        label = f"{chosen} of {sets[0].label} on {spec.label}"
        tune = make_job("tune", label, identity, {"artifact": sets[0].key, **shared})
        jobs[tune.key] = tune
        shared["rate"] = tune.key
    for cell, distill in zip(cells, sets, strict=True):
        label = f"{distill.label} on {spec.label}"
        if distill.identity["seed"] != cell.seed:
            label += f" (students {cell.seed})"
        identity = spec.identity(cell, n_images) | spec.extras()
        job = make_job("evaluate", label, identity, {"artifact": distill.key, **shared})
        jobs[job.key] = job


def plan_teacher(jobs: dict[str, Job], spec: EvaluationSpec, cell: Cell) -> dict[str, str]:
    """{"teacher": key} for a protocol with a teacher; else empty."""
    if spec.protocol.teacher is None:
        return {}
    taught = spec.protocol.teacher
    if taught.recipe is None:
        teacher: Prerequisite = block_class("ImportedTeacher")(taught.weights)
    else:
        teacher = block_class("Teacher")(**dataclasses.asdict(taught.recipe), stops=taught.stops)
    network = spec.student if taught.architecture is None else parse_architecture(taught.architecture)
    cell = dataclasses.replace(cell, architecture=network, precision=spec.protocol.precision)
    return _prepare(jobs, {"teacher": teacher}, cell)
