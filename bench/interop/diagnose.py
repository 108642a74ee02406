"""Check a published set against its published accuracy, and find which usual cause explains a difference.

The trials are compared by test accuracy: they explain a difference, and must not be reported as results.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.preprocess import Preprocess
from bench.data.dataset import Dataset
from bench.evaluation.scoring import (
    EvaluationSetting,
    learning_rate,
    rates_on_holdout,
    resolve_protocol,
    train_and_score,
)
from bench.evaluation.students import train_students
from bench.interop.importers.pixel_space import SPACES
from bench.interop.importers.read import read_set
from bench.interop.importers.request import ImportRequest
from bench.planning.graph import HOLDOUT
from bench.planning.protocols import Protocol, load_protocol
from bench.planning.resources import Resources

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"
SUSPECTS = (
    "pixel values",
    "image axes",
    "brightness",
    "class order",
    "width",
    "augmentation",
    "learning rate",
)
MOST_BLAMED = 3  # suspects that together explain a difference
LEAST_GAIN = 0.005  # of accuracy; a smaller change explains nothing
IMAGES_SHOWN = 2000  # real training images from which the class order is inferred
GIVEN = "as given"


@dataclass(frozen=True)
class TrialSetup:
    """One way to read the file and to train on it."""

    pixels: str  # how the values are read
    classes: tuple[int, ...]  # class c of the file is class classes[c] of the data
    architecture: Architecture
    protocol: Protocol
    transposed: bool = False  # rows of the file's images are columns of the data's
    inverted: bool = False  # what is bright in the file is dark in the data

    def training(self, **changes: Any) -> "TrialSetup":
        """The same setup with some values of the recipe changed."""
        recipe = replace(self.protocol.recipe, **changes)
        fixed = {"recipe": recipe, "rates": (), "learned_lr": False}
        return replace(self, protocol=self.protocol.model_copy(update=fixed))


@dataclass(frozen=True)
class ChangeTrial:
    """The effect of one change on the accuracy."""

    round: int  # 0: as requested
    suspect: str
    change: str
    accuracies: list[float]  # a fraction per student
    gain: float  # over the accuracy at the start of this round

    @property
    def accuracy(self) -> float:
        """Mean of the students, a fraction."""
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation of the students."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class Verdict:
    """The published accuracy, the first trial, and the changes that explain the difference."""

    expected: float
    first: ChangeTrial
    blamed: list[ChangeTrial]  # each on top of those before it

    @property
    def missing(self) -> float:
        """The difference that is left unexplained: expected minus reached accuracy, a fraction."""
        return self.expected - (self.blamed[-1] if self.blamed else self.first).accuracy


class _Reread(DistilledDataset):
    """A set as a setup reads it: class c becomes classes[c]; images may be transposed and inverted."""

    def __init__(self, distilled: DistilledDataset, setup: TrialSetup) -> None:
        super().__init__(distilled.preprocess)
        self.distilled, self.setup, self.classes = distilled, setup, torch.tensor(setup.classes)

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, targets = self.distilled.decode(items)
        if self.setup.transposed:
            images = images.mT.contiguous()
        if self.setup.inverted:
            images = self.preprocess(1 - self.preprocess.invert(images))
        to = self.classes.to(targets.device)
        return images, to[targets] if targets.ndim == 1 else targets[:, to.argsort()]

    def variants(self) -> Tensor | None:
        return self.distilled.variants()


class Verification:
    """The verification of one set of a file, under one protocol and architecture."""

    def __init__(
        self,
        request: ImportRequest,
        seed: int,
        setting: EvaluationSetting,
        on_trial: Callable[[ChangeTrial], None] = lambda trial: None,
    ) -> None:
        """Read the set.

        Args:
            request: the file, and what it does not say of itself.
            seed: which of the file's sets.
            setting: data set, architecture, protocol and students.
            on_trial: is called with each trial as it ends.

        Raises:
            UserError: the file cannot be read, or has no such set.
        """
        self._setting, self._on_trial = setting, on_trial
        readings = _readings(request, seed, setting.data)  # on the CPU
        self._readings = {name: distilled.to(setting.device) for name, distilled in readings.items()}
        distilled = self._readings[GIVEN]
        same = tuple(range(setting.data.n_classes))
        setup = TrialSetup(GIVEN, same, setting.architecture, setting.protocol)
        tuned = rates_on_holdout(distilled, setting, HOLDOUT) if setting.protocol.rates else None
        self._start = setup.training(lr=learning_rate(distilled, setting.protocol, tuned)[0])

    def run(self, expected: float, tolerance: float) -> Verdict:
        """Evaluate the set; if it misses the accuracy, apply the changes that bring it closest, one by one.

        Args:
            expected: the published accuracy, a fraction.
            tolerance: how far from it is close enough, a fraction.

        Returns:
            The first trial, and the changes that explain the difference.
        """
        setup, blamed = self._start, list[ChangeTrial]()
        now = first = self._try(0, "as asked", self._describe(setup), setup, None)
        left = list(SUSPECTS)
        for number in range(1, MOST_BLAMED + 1):
            if abs(now.accuracy - expected) <= tolerance:
                break
            tried = [
                (self._try(number, suspect, change, other, now), other)
                for suspect in left
                for change, other in self._changes(suspect, setup)
            ]
            if not tried:
                break
            best, other = min(tried, key=lambda pair: abs(pair[0].accuracy - expected))
            if abs(now.accuracy - expected) - abs(best.accuracy - expected) < LEAST_GAIN:
                break
            now, setup = best, other
            blamed.append(best)
            left.remove(best.suspect)
        return Verdict(expected, first, blamed)

    def _try(
        self, number: int, suspect: str, change: str, setup: TrialSetup, base: ChangeTrial | None
    ) -> ChangeTrial:
        accuracies = train_and_score(self._set(setup), self._sit(setup)).scores.accuracies
        gain = 0.0 if base is None else mean(accuracies) - base.accuracy
        trial = ChangeTrial(number, suspect, change, accuracies, gain)
        self._on_trial(trial)
        return trial

    def _set(self, setup: TrialSetup) -> DistilledDataset:
        return _Reread(self._readings[setup.pixels], setup)

    def _sit(self, setup: TrialSetup) -> EvaluationSetting:
        return replace(self._setting, architecture=setup.architecture, protocol=setup.protocol)

    def _describe(self, setup: TrialSetup) -> str:
        recipe = setup.protocol.recipe
        return f"{setup.protocol.name}, {setup.architecture.label}, rate {recipe.lr:g}, {recipe.augment}"

    def _changes(self, suspect: str, setup: TrialSetup) -> Iterator[tuple[str, TrialSetup]]:
        """Yield (what is changed, the setup with this one change)."""
        recipe, architecture = setup.protocol.recipe, setup.architecture
        if suspect == "pixel values":
            yield from (
                (name, replace(setup, pixels=name)) for name in self._readings if name != setup.pixels
            )
        elif suspect == "image axes" and len(set(self._setting.data.image_shape[1:])) == 1:
            yield "transposed", replace(setup, transposed=True)
        elif suspect == "brightness":
            yield "inverted", replace(setup, inverted=True)
        elif suspect == "class order":
            order = self._class_order(setup)
            if order != setup.classes:
                moved = sum(a != b for a, b in zip(order, setup.classes, strict=True))
                yield f"{moved} classes renamed", replace(setup, classes=order)
        elif suspect == "width" and (width := dict(architecture.params).get("width")):
            for other in (max(1, width // 2), width * 2):
                params = dict(architecture.params) | {"width": other}
                changed = parse_architecture({"name": architecture.family, **params})
                yield changed.label, replace(setup, architecture=changed)
        elif suspect == "augmentation":
            other = "none" if recipe.augment != "none" else DSA_STRATEGY
            yield other, setup.training(augment=other)
        elif suspect == "learning rate":
            yield from ((f"{rate:g}", setup.training(lr=rate)) for rate in RATES if rate != recipe.lr)

    def _class_order(self, setup: TrialSetup) -> tuple[int, ...]:
        """The class order with which one student is right most often on real training images."""
        setting, seed = self._sit(setup), self._setting.seed
        distilled, train = self._set(setup), setting.data.train
        draw = random.generator(seed, "class order")
        found = train_students(
            lambda i: setting.build(random.generator(seed, "class order", "init")),
            setting.training_set(distilled),
            [draw],
        )
        (student,) = found.values()
        some = torch.randperm(len(train.labels), generator=draw)[:IMAGES_SHOWN]
        images = distilled.preprocess(train.images[some].to(setting.device))
        guessed = student.logits(images)[0].argmax(1).cpu()
        n = setting.data.n_classes
        seen = (guessed * n + train.labels[some]).bincount(minlength=n * n).view(n, n)
        _, meant = linear_sum_assignment(seen.numpy(), maximize=True)
        return tuple(int(meant[c]) for c in setup.classes)


NATIVE = {"dc": "dsa1000", "mtt": "mtt", "datm": "mtt", "haba": "haba", "idc": "idc", "rtp": "rtp"}


def prepare_verification(
    request: ImportRequest,
    seed: int,
    dataset: Dataset,
    architecture: str,
    protocol: str | None,
    students: int,
    needs: Resources,
    on_trial: Callable[[ChangeTrial], None],
) -> Verification:
    """Prepare a verification from the arguments of the command line.

    Args:
        request: the file, and what it does not say of itself.
        seed: which of the file's sets.
        dataset: the data set that it was made from.
        architecture: name of the students' architecture.
        protocol: name of the protocol; by default that of the file's format.
        students: number of students.
        needs: threads and GPUs.
        on_trial: is called with each trial as it ends.

    Returns:
        The verification, to be run.

    Raises:
        UserError: an argument is invalid, or the file cannot be read.
    """
    if students < 1:
        raise UserError(f"--students {students}: must be at least 1")
    parsed = parse_architecture(architecture)
    parsed.check(dataset.image_shape)
    held = read_set(request, dataset)[0]
    chosen = load_protocol(protocol or NATIVE.get(held.format, "standard"), taught=False)
    chosen = resolve_protocol(chosen, dataset, parsed, held.distilled)
    torch.set_num_threads(needs.cpus)
    device = torch.device("cuda:0" if needs.gpus else "cpu")
    return Verification(
        request, seed, EvaluationSetting(dataset, parsed, chosen, students, 0, device), on_trial
    )


def _readings(request: ImportRequest, seed: int, dataset: Dataset) -> dict[str, DistilledDataset]:
    """The set as requested, and under every other meaning that its pixel values could have."""
    found = {GIVEN: _pick(request, seed, dataset)}
    others: dict[str, DistilledDataset] = {}
    for space in SPACES:
        with contextlib.suppress(UserError):  # its values rule that out
            others[f"taken as {space}"] = _pick(replace(request, space=space), seed, dataset)
    own = _pick(request, seed, dataset)
    own.preprocess = Preprocess(dataset.mean, dataset.std)
    others["normalised by the data's own mean and deviation"] = own
    for name, other in others.items():
        if not any(_alike(other, known) for known in found.values()):
            found[name] = other
    return found


def _alike(one: DistilledDataset, other: DistilledDataset) -> bool:
    """Whether students would be trained and tested on the same images with both."""
    with torch.no_grad():
        same = torch.equal(one.decode()[0], other.decode()[0])
    return same and one.preprocess == other.preprocess


def _pick(request: ImportRequest, seed: int, dataset: Dataset) -> DistilledDataset:
    sets = {one.seed: one.distilled for one in read_set(request, dataset)}
    if seed not in sets:
        raise UserError(f"{request.path} holds the sets {', '.join(map(str, sets))}, not {seed}")
    return sets[seed]
