"""Distill and score one set in this process, by the same code as a job of a sweep."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.loop import Loop
from bench.core.method import Problem
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.precision import DEFAULT, computing
from bench.core.registry import block_class
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec, preset_name, read_entry
from bench.evaluation.metrics import Scores
from bench.evaluation.scoring import EvaluationSetting, resolve_protocol, train_and_score, tune_on_holdout
from bench.evaluation.storage import measure_storage
from bench.execution.jobs import job_precision, make_problem
from bench.execution.progress import show_steps
from bench.planning.checks import check_distillation
from bench.planning.graph import HOLDOUT, Cell, EvaluationSpec, Job, plan_distillation, plan_teacher
from bench.planning.protocols import load_protocol
from bench.planning.sweep import MethodEntry
from bench.planning.yaml_schema import describe_faults, list_faults
from bench.reporting.images.contact_sheet import save_sheet, sheet_figure
from bench.reporting.images.sheets import images_sheet

_prepared: dict[tuple[str, str], dict[str, Tensor]] = {}  # by device and key: built once in a process


def load_dataset(what: str | Path | Mapping[str, Any], **keys: Any) -> Dataset:
    """Read a data set, decoded once into a cache.

    Args:
        what: a name (`ddbench list datasets`), a folder of images, or a mapping as in a sweep.
        keys: further keys of such a mapping: data_dir, image_size, split, classes, holdout, label, download.

    Returns:
        Images uint8 [N,C,H,W] and labels int64 [N] of both splits, class names, mean and deviation.

    Raises:
        UserError: an unknown name or key, missing or damaged files.

    Example:
        >>> data = load_dataset("cifar10", data_dir="data")
    """
    entry = read_entry(str(what) if isinstance(what, Path) else what)
    if not isinstance(entry, Mapping):
        raise UserError(f"a data set is a name, a folder or a mapping, not {type(what).__name__}")
    try:
        spec = DatasetSpec.model_validate({**entry, **keys})
    except ValidationError as error:
        raise UserError(f"data set: {describe_faults(list_faults(error))}") from None
    return read_dataset(prepare_dataset(spec))


def distill(
    method: str,
    data: Dataset,
    *,
    ipc: int,
    architecture: str = "convnet",
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
    **hyperparameters: Any,
) -> DistilledDataset:
    """Distill a data set; the same images, to the last bit, as `ddbench run` with the same settings on a CPU.

    Prerequisites (expert trajectories, trained networks, whitening) are built first, once in a process.

    Args:
        method: its name (`ddbench list methods`).
        data: from `load_dataset`.
        ipc: images per class: the budget.
        architecture: the network that the method distills with.
        seed: of every random draw.
        device: where to compute.
        progress: show a bar on a terminal.
        hyperparameters: of the method, in the place of the presets; `preprocess="zca"` for whitened images,
            `precision="bf16"` for another arithmetic.

    Returns:
        The distilled set: `decode()` gives images and targets, `save(path)` keeps it.

    Raises:
        UserError: unknown names, a network that the images do not fit, and what the method refuses.

    Example:
        >>> dd.distill("dm", data, ipc=10, steps=300)
    """
    try:
        entry = MethodEntry.model_validate({"name": method, **hyperparameters})
    except ValidationError as error:
        raise UserError(describe_faults(list_faults(error))) from None
    if entry.seeds is not None:
        raise UserError("seeds: a set has one, `seed`")
    network = _fitting(architecture, data)
    if ipc < 1:
        raise UserError(f"ipc: {ipc}; take at least 1")
    presets = preset_name(data.name, data.label)
    resolved = entry.resolve(presets, ipc)
    precision = entry.precision(presets, ipc, resolved, DEFAULT)
    cell = Cell(data, ipc, network, seed, entry.preprocess(presets, ipc), precision=precision)
    jobs: dict[str, Job] = {}
    check_distillation(resolved, data, ipc, network)
    job = plan_distillation(jobs, entry.name, resolved, cell)
    console = Console(stderr=True, quiet=not progress)
    where = torch.device(device)
    _build(jobs, data, where, console)
    with tempfile.TemporaryDirectory(prefix="ddbench-") as folder:
        loop = Loop(Path(folder), every_s=float("inf"))
        problem = dataclasses.replace(_problem(job, jobs, data, where), loop=loop)
        with show_steps(Path(folder), job.label, console), computing(precision):
            return resolved.distill(problem)


@dataclass(frozen=True)
class Evaluation:
    """What students of one set scored on the test split; fractions, a list has one entry per student."""

    accuracies: list[float]
    metrics: Scores  # by class, calibration, agreement
    lr: float  # that the students were trained at
    seconds: float
    stored_floats: int  # everything stored counts, soft labels and learned numbers too
    ipc_equivalent: float  # as images per class
    protocol: str
    architecture: str

    @property
    def accuracy(self) -> float:
        """The mean over the students."""
        return fmean(self.accuracies)

    def __repr__(self) -> str:
        spread = f" ± {100 * stdev(self.accuracies):.1f}" if len(self.accuracies) > 1 else ""
        of = f"{len(self.accuracies)} x {self.architecture}, {self.protocol}"
        return f"<Evaluation {100 * self.accuracy:.1f} %{spread} ({of}; {self.seconds:.1f} s)>"


def evaluate(
    distilled: DistilledDataset,
    data: Dataset,
    *,
    protocol: str = "standard",
    architecture: str = "convnet",
    students: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Train students on a distilled set and score them on the test split, once, after the last step.

    Args:
        distilled: from `distill` or `load`.
        data: the data set that it was distilled from.
        protocol: how students are trained (`ddbench list protocols`).
        architecture: of the students.
        students: how many.
        seed: of their initialisation, data order and augmentation.
        device: where to compute.

    Returns:
        Accuracies, further metrics, seconds and storage.

    Raises:
        UserError: unknown names, no student, a network that the images do not fit.

    Example:
        >>> dd.evaluate(s, data, protocol="quick", students=3).accuracy
    """
    if students < 1:
        raise UserError(f"students: {students}; train at least 1")
    where, network = torch.device(device), _fitting(architecture, data)
    chosen = resolve_protocol(load_protocol(protocol), data, network, distilled)
    jobs: dict[str, Job] = {}
    needed = plan_teacher(jobs, EvaluationSpec(network, chosen, students), Cell(data, 0, network, seed))
    _build(jobs, data, where, Console(stderr=True))
    teacher = _prepared[str(where), needed["teacher"]] if needed else None
    setting = EvaluationSetting(data, network, chosen, students, seed, where, teacher)
    given = distilled.to(where)
    tuned = tune_on_holdout(given, setting, HOLDOUT) if chosen.trials else None
    with timing.measure(where) as measured:
        result = train_and_score(given, setting, tuned)
    stored = measure_storage(given, data, ipc=None, given=result.training.soft_labels)
    return Evaluation(
        accuracies=result.scores.accuracies,
        metrics=result.scores,
        lr=result.training.lr,
        seconds=measured.seconds,
        stored_floats=stored.floats,
        ipc_equivalent=stored.ipc_equivalent,
        protocol=chosen.name,
        architecture=network.label,
    )


def show(
    distilled: DistilledDataset,
    classes: Sequence[str] | None = None,
    *,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw the images of a set, a row per class.

    Args:
        distilled: from `distill` or `load`.
        classes: their names, e.g. `data.classes`; by default their numbers.
        title: written above.
        path: also written there, as PNG.

    Returns:
        A matplotlib figure, which a notebook shows.
    """
    with torch.no_grad():
        _, targets = distilled.decode()
    n = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    sheet = images_sheet(distilled, title, list(classes) if classes else [str(c) for c in range(n)])
    if path is not None:
        save_sheet(sheet, Path(path))
    return sheet_figure(sheet)


def _fitting(architecture: str, data: Dataset) -> Architecture:
    network = parse_architecture(architecture)
    network.check(data.image_shape)
    return network


def _problem(job: Job, jobs: Mapping[str, Job], data: Dataset, device: torch.device) -> Problem:
    prepared = {role: _prepared[str(device), key] for role, key in job.inputs.items()}
    whitening = job.inputs.get("whitening")
    kind = None if whitening is None else jobs[whitening].identity["values"]["kind"]
    return make_problem(job.identity, data, data.train.to(device), prepared, kind)


def _build(jobs: Mapping[str, Job], data: Dataset, device: torch.device, console: Console) -> None:
    """Build the prerequisites that this process has not built yet, inputs first."""
    needed = [job for job in jobs.values() if job.kind == "prepare"]
    missing = [job for job in needed if (str(device), job.key) not in _prepared]
    for i, job in enumerate(missing):
        text = f"building {job.label} ({i + 1} of {len(missing)})"
        with console.status(text) if console.is_terminal else contextlib.nullcontext():
            block = block_class(job.identity["block"])(**job.identity["values"])
            with computing(job_precision(job)):
                built = block.build(_problem(job, jobs, data, device))
        _prepared[str(device), job.key] = {name: t.detach().cpu().contiguous() for name, t in built.items()}
