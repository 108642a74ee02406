"""Classifiers that a memory was not distilled for (RTP; Deng & Russakovsky, NeurIPS 2022, section 5.3).

A task is a list of groups of classes. For classes that the artifact has, its own images are used, labelled by
their group ("recombined"). For other classes, a memory of linear bases makes images from a few real ones, the
shots, without being changed: the combinations of bases closest to the shots ("fitted"), or the images of the
class embedding computed from the shots ("embedding").
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.errors import UserError
from bench.core.io import write_atomic
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.sampling import ClassIndex, ClassSampler
from bench.data.cache import prepare_dataset, read_dataset, regroup_dataset
from bench.data.dataset import Dataset
from bench.data.spec import DatasetSpec, preset_name
from bench.data.subset import class_positions
from bench.evaluation.scoring import EvaluationSetting, train_and_score
from bench.execution.provenance import versions
from bench.execution.store import WEIGHTS, Store, verified_meta
from bench.planning.protocols import load_protocol
from bench.records.schema import content_digest

RIDGE = 1e-3  # only stabilises the solution where bases are nearly equal
ByClass = dict[int, Tensor]  # class of the whole data set -> its images [n,C,H,W], normalised or uint8


@runtime_checkable
class Memory(Protocol):
    """A parameterisation that can make images of classes that it was not distilled for."""

    @property
    def embeds(self) -> bool: ...
    def fit(self, images: Tensor, ridge: float) -> Tensor: ...
    def combine(self, coefficients: Tensor) -> Tensor: ...
    def embed(self, images: Tensor) -> Tensor: ...
    def recall(self, queries: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class RecallQuestion:
    """A task as given on the command line, and how to score it."""

    classes: str  # groups between commas, the classes of a group between plus signs
    shots: int  # real images of each class that the artifact does not have
    architecture: str
    protocol: str
    students: int
    seed: int

    def __post_init__(self) -> None:
        for name, value, least in (
            ("shots", self.shots, 1),
            ("students", self.students, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise UserError(f"--{name} {value}: must be at least {least}")


@dataclass(frozen=True)
class RecallTask:
    """Groups of classes, the artifact's classes, and the data; classes are positions in `whole`."""

    whole: Dataset
    groups: list[list[int]]
    held: list[int]  # position in the artifact -> position in the whole data set
    data: Dataset  # with the groups as classes: what the students are tested on

    @property
    def classes(self) -> list[int]:
        """The classes of the task."""
        return [c for group in self.groups for c in group]

    @property
    def new(self) -> list[int]:
        """The classes of the task that the artifact does not have."""
        return [c for c in self.classes if c not in self.held]

    def real(self, per_class: int, generator: torch.Generator) -> ByClass:
        """Random training images uint8 of each class, all different: fewer where it has fewer.

        Those of a class do not depend on the task.
        """
        index = ClassIndex.of(self.whole.train.labels, self.whole.n_classes)
        drawn = ClassSampler(index, per_class, generator).next()
        return {c: self.whole.train.images[drawn[c][: int(index.counts[c])]] for c in self.classes}


@dataclass(frozen=True)
class RecallAnswer:
    """A training set for the task: images [n,C,H,W], normalised or uint8, and their groups int64 [n]."""

    name: str
    images: Tensor
    labels: Tensor
    images_per_class: tuple[int, int]  # fewest and most, without repetitions
    floats: int  # stored; an artifact is counted in full, even if the task uses a part of it


@dataclass(frozen=True)
class RecallRow:
    """An answer and its accuracies."""

    name: str
    accuracies: list[float]  # a fraction per student
    images_per_class: tuple[int, int]
    floats: int

    def words(self) -> tuple[str, str, str, str]:
        """The cells of a table: name, accuracy in percent (one artifact, so no interval), images, floats."""
        found = [100 * a for a in self.accuracies]
        spread = f" ± {stdev(found):.1f}" if len(found) > 1 else ""
        images = " to ".join(f"{n:,}" for n in sorted(set(self.images_per_class)))
        return self.name, f"{mean(found):.1f}{spread}", images, f"{self.floats:,}"


@dataclass(frozen=True)
class RecallResult:
    """The rows of the table, and the file with the same content."""

    title: str  # the artifact and the task
    rows: list[RecallRow]
    path: Path  # JSON


class _Shown(DistilledDataset):
    """An answer as a set for students to train on; it is never saved."""

    def __init__(self, answer: RecallAnswer, preprocess: Preprocess) -> None:
        super().__init__(preprocess)
        self.answer = answer

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images = self.answer.images
        return self.preprocess(images) if images.dtype == torch.uint8 else images, self.answer.labels


def recall_task(directory: Path, identity: str | None, question: RecallQuestion) -> RecallResult:
    """Train students for a task, on images from the artifact and on real ones, and write their accuracies.

    Args:
        directory: a result folder, or the folder of an artifact.
        identity: with a result folder, the beginning of the artifact's key.
        question: the task.

    Returns:
        The table, and the file that was written.

    Raises:
        UserError: the task is not valid for this artifact, the artifact is damaged, or its data set is
            missing or has changed.
    """
    architecture = parse_architecture(question.architecture)
    protocol = load_protocol(question.protocol, taught=False)
    store, key = _locate(directory, identity)
    meta = verified_meta(store, key)
    whole, held = _data_of(meta)
    architecture.check(whole.image_shape)
    protocol = protocol.resolve(preset_name(whole.name, whole.label), architecture, meta["identity"]["ipc"])
    groups = _groups(question.classes, whole.classes)
    task = RecallTask(
        whole, groups, held, regroup_dataset(whole, groups, f"{whole.label} {question.classes}")
    )
    distilled = load_distilled(store.artifact(key) / WEIGHTS)
    answers = _from_memory(distilled, task, question) + _from_data(task, meta["identity"]["ipc"], question)
    device = torch.device("cpu")
    rows = []
    for a in answers:
        shown = _Shown(a, distilled.preprocess)
        setting = EvaluationSetting(
            task.data, architecture, protocol, question.students, question.seed, device
        )
        accuracies = train_and_score(shown, setting).scores.accuracies
        rows.append(RecallRow(a.name, accuracies, a.images_per_class, a.floats))
    asked = {"artifact": key, "dataset": whole.fingerprint, **asdict(question)}
    asked["protocol_version"] = protocol.version
    found = {"label": meta["label"], "task": task.data.classes, "rows": [asdict(row) for row in rows]}
    found["versions"] = versions()
    path = store.root / "recall" / f"{key}-{content_digest(asked)[:8]}.json"
    write_atomic(path, json.dumps({**asked, **found}, indent=1) + "\n")
    return RecallResult(f"{meta['label']}  {key}: {' against '.join(task.data.classes)}", rows, path)


def _locate(directory: Path, identity: str | None) -> tuple[Store, str]:
    folder = directory.resolve()
    if identity is None and folder.parent.name == "artifacts" and folder.is_dir():
        return Store(folder.parent.parent), folder.name
    store = Store(directory)
    if not store.artifacts.is_dir():
        raise UserError(f"no artifacts in {directory}: name a result folder, or an artifact's folder in one")
    if identity is None:
        raise UserError(
            f"which artifact of {directory}? Add the beginning of its key; `ddbench show` lists them"
        )
    return store, store.find(identity)


def _data_of(meta: dict[str, Any]) -> tuple[Dataset, list[int]]:
    """The artifact's data set with all of its classes, and which of them the artifact has."""
    if "dataset_spec" not in meta:
        raise UserError(
            f"{meta['label']} does not say where its data are (an older ddbench): distill it again"
        )
    spec = DatasetSpec.model_validate(meta["dataset_spec"])
    own = read_dataset(prepare_dataset(spec))
    if own.fingerprint != meta["identity"]["dataset"]:
        raise UserError(
            f"the images of {own.label} are no longer those that {meta['label']} was distilled from"
        )
    if spec.classes is None:
        return own, list(range(own.n_classes))
    whole = read_dataset(prepare_dataset(spec.whole))
    return whole, class_positions(spec.classes, whole.classes)


def _groups(text: str, classes: tuple[str, ...]) -> list[list[int]]:
    """Read a task: 0+2,1 -> [[0, 2], [1]], positions in `classes`. Raises UserError if it is not one."""
    groups = [[name.strip() for name in group.split("+")] for group in text.split(",")]
    if not all(name for group in groups for name in group):
        raise UserError(f"--classes {text!r}: a class is missing; write groups like 0,1,7 or 0+2,1+3")
    if len(groups) < 2:
        raise UserError(f"--classes {text!r}: one group leaves nothing to tell apart; a comma begins another")
    try:
        found = iter(class_positions([name for group in groups for name in group], classes))
    except UserError as error:
        raise UserError(f"--classes: {error}") from None
    return [[next(found) for _ in group] for group in groups]


# --- what the students are trained on -----------------------------------------------------------------------


@torch.no_grad()
def _from_memory(
    distilled: DistilledDataset, task: RecallTask, question: RecallQuestion
) -> list[RecallAnswer]:
    """The artifact's images of its own classes, with those of new classes made in each of the ways."""
    own = _own_images(distilled, task)
    if not task.new:
        return [_answer("memory (recombined)", own, task, distilled.n_stored)]
    name = task.whole.classes[task.new[0]]
    if not isinstance(distilled, Memory):
        raise UserError(
            f"--classes: the artifact does not hold {name!r}, and its {type(distilled).__name__} cannot "
            "make images of a class that it does not hold: ask a memory of LinearBases"
        )
    smallest = int(task.whole.train.labels.bincount()[task.new].min())
    if question.shots > smallest:
        raise UserError(
            f"--shots {question.shots}: a new class has {smallest} training images; take at most that"
        )
    shots = task.real(question.shots, random.generator(question.seed, "recall", "shots"))
    seen = {c: distilled.preprocess(shots[c]) for c in task.new}
    fits = {c: distilled.fit(images, RIDGE) for c, images in seen.items()}
    fitted = {c: distilled.combine(a) for c, a in fits.items()}
    stored = distilled.n_stored + sum(a.numel() for a in fits.values())
    answers = [_answer(f"memory (fitted, {_shots(question)})", own | fitted, task, stored)]
    if distilled.embeds:
        queries = {c: distilled.embed(images) for c, images in seen.items()}
        named = {c: distilled.recall(q[None]) for c, q in queries.items()}
        stored = distilled.n_stored + sum(q.numel() for q in queries.values())
        answers.append(_answer(f"memory (embedding, {_shots(question)})", own | named, task, stored))
    return answers


def _from_data(task: RecallTask, ipc: int | None, question: RecallQuestion) -> list[RecallAnswer]:
    """Real images: as many per class as fit the artifact's budget, the shots, and all."""
    size = task.whole.train.images[0].numel()

    def real(name: str, per_class: int, purpose: str) -> RecallAnswer:
        images = task.real(per_class, random.generator(question.seed, "recall", purpose))
        return _answer(name, images, task, sum(map(len, images.values())) * size)

    answers = [] if ipc is None else [real("real images, same storage per class", ipc, "real")]
    if task.new:
        answers.append(real(f"real images, {_shots(question)}", question.shots, "shots"))
    everything, counts = task.data.train, task.whole.train.labels.bincount()[task.classes]
    span = (int(counts.min()), int(counts.max()))
    floats = everything.images.numel()
    return [*answers, RecallAnswer("whole training set", everything.images, everything.labels, span, floats)]


def _shots(question: RecallQuestion) -> str:
    return f"{question.shots} shot{'s' if question.shots > 1 else ''}"


def _own_images(distilled: DistilledDataset, task: RecallTask) -> ByClass:
    """The artifact's decoded images of each class of the task that it has."""
    images, targets = distilled.decode()
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    own = {c: images[labels == task.held.index(c)] for c in task.classes if c in task.held}
    for c, found in own.items():
        if not len(found):  # with learned labels, a class can lose its images
            raise UserError(
                f"--classes: no image of the artifact is labelled {task.whole.classes[c]!r} any more"
            )
    return own


def _answer(name: str, images: ByClass, task: RecallTask, floats: int) -> RecallAnswer:
    """All classes together, labelled by their groups; small classes are repeated to equal size."""
    counts = [len(images[c]) for c in task.classes]
    rows = torch.arange(max(counts))
    groups = torch.tensor([j for j, group in enumerate(task.groups) for _ in group])
    return RecallAnswer(
        name,
        torch.cat([images[c][rows % len(images[c])] for c in task.classes]),
        groups.repeat_interleave(len(rows)),
        (min(counts), max(counts)),
        floats,
    )
