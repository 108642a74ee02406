"""Train students on what a set decodes to, score them, and choose rates and soft labels on a hold-out."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from bench.core import counting, random
from bench.core.augment.tiles import resolve_tiles
from bench.core.distilled import DistilledDataset
from bench.core.networks.architecture import Architecture, parse_architecture
from bench.core.networks.base import Network
from bench.core.paper_constants import paper_normalisation
from bench.core.precision import computing
from bench.core.preprocess import NORMALISE, PAPER, Preprocess, Zca
from bench.core.teachers import soft_labels, teacher_state
from bench.core.transfer import to_device, to_host
from bench.data.dataset import Dataset, Split
from bench.data.holdout import held_out
from bench.data.spec import preset_name
from bench.evaluation.labels import (
    LabelChoice,
    Seeing,
    Tensors,
    label_candidates,
    label_choice,
    label_scores,
)
from bench.evaluation.metrics import Scores, score_students
from bench.evaluation.storage import images_per_class
from bench.evaluation.students import TrainingSet, train_students
from bench.planning.protocols import Protocol
from bench.records.schema import CurvePoint, GivenTeacher, LrFrom, SoftLabels, StudentTraining

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class EvaluationSetting:
    """Which students are trained, how, and for which data set."""

    data: Dataset
    architecture: Architecture
    protocol: Protocol
    students: int
    seed: int
    device: torch.device
    teacher: Tensors | None = None  # of the network that labels, if the protocol has one; see core.teachers

    def __post_init__(self) -> None:
        assert not self.protocol.rules, "whoever plans an evaluation resolves the protocol's rules"

    def build(self, generator: torch.Generator) -> Network:
        return self.architecture.build_on(self.device, self.data.image_shape, self.data.n_classes, generator)

    def training_set(self, distilled: DistilledDataset, choice: LabelChoice | None = None) -> TrainingSet:
        """What students are trained on, with the labels that the protocol asks for; decoded once.

        Weights of images are no labels: they count under all of them.

        `choice`: which soft labels, for a protocol that has them; by default the first candidate.
        """
        protocol = self.protocol
        with torch.no_grad():  # and detached: a set of plain pixels decodes to its own parameter
            images, targets = (t.detach().contiguous() for t in distilled.decode())
        if protocol.labels != "stored" and is_soft(targets):
            targets = targets.argmax(1)
        weights = targets.sum(1, keepdim=True) if targets.ndim == 2 else 1
        recipe = replace(protocol.recipe, augment=resolve_tiles(protocol.recipe.augment, distilled.tiles))
        variants = distilled.variants() if protocol.epoch_over == "items" else None
        training_set = TrainingSet(images, targets, recipe, distilled.preprocess, variants=variants)
        if protocol.labels == "soft":
            chosen = choice or label_candidates(protocol)[0]
            teacher = self._teacher(distilled, chosen.stop)
            given = soft_labels(teacher, images, chosen.temperature)
            rounded = given.half().to(given) if protocol.stored_as == "fp16" else given
            return replace(training_set, targets=weights * rounded)
        if protocol.teacher is None:
            return training_set
        return replace(
            training_set, teacher=self._teacher(distilled), temperature=protocol.teacher.temperature
        )

    def _teacher(self, distilled: DistilledDataset, stop: float = 1.0) -> Seeing:
        """The network that labels what the students of a set see, as it was at a stop of its training."""
        assert self.teacher is not None, "the plan gives the teacher"
        assert self.protocol.teacher is not None
        name = self.protocol.teacher.architecture
        architecture = self.architecture if name is None else parse_architecture(name)
        shape, n_classes, draws = self.data.image_shape, self.data.n_classes, random.generator(0, "teacher")
        net = architecture.build_on(self.device, shape, n_classes, draws)
        weights = teacher_state(self.teacher, stop)
        net.load_state_dict({name: to_device(tensor, self.device) for name, tensor in weights.items()})
        seeing = Seeing(net, Preprocess(self.data.mean, self.data.std), distilled.preprocess)
        return seeing.to(self.device).eval().requires_grad_(False)


def resolve_protocol(
    protocol: Protocol, data: Dataset, student: Architecture, distilled: DistilledDataset
) -> Protocol:
    """The protocol with its rules applied for a set that no plan has made."""
    name, factor = preset_name(data.name, data.label), getattr(distilled, "factor", 1)
    return protocol.resolve(name, student, images_per_class(distilled, data), factor)


def _named(preprocess: Preprocess, data: Dataset) -> str:
    """What records call it."""
    if isinstance(preprocess, Zca):
        return f"zca ({preprocess.kind})"
    own = Preprocess(data.mean, data.std)
    published = paper_normalisation((data.label, data.name), data.image_shape[0])
    return PAPER if preprocess == published != own else NORMALISE


@dataclass(frozen=True)
class EvaluationResult:
    """The students' scores at the end, accuracies on the way there, and how they were trained."""

    scores: Scores
    curve: list[CurvePoint]
    training: StudentTraining


def _at_its_precision(
    function: Callable[Concatenate[DistilledDataset, EvaluationSetting, P], R],
) -> Callable[Concatenate[DistilledDataset, EvaluationSetting, P], R]:
    """Decorate what trains students, to compute at the precision of the protocol."""

    @functools.wraps(function)
    def call(
        distilled: DistilledDataset, setting: EvaluationSetting, /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        with computing(setting.protocol.precision):
            return function(distilled, setting, *args, **kwargs)

    return call


@_at_its_precision
def train_and_score(
    distilled: DistilledDataset,
    setting: EvaluationSetting,
    tuned: Tensors | None = None,
    curve: Sequence[float] = (),
) -> EvaluationResult:
    """Train the students and read the test split once, after the last step.

    Each student has its own initialisation, data order and augmentation draws. `tuned` is what
    `tune_on_holdout` found; the points of the curve are weights kept during the training.
    """
    protocol, seed = setting.protocol, setting.seed
    choice = label_choice(protocol, tuned)
    training_set = setting.training_set(distilled, choice)
    lr, lr_from, on_holdout = learning_rate(distilled, protocol, tuned)
    steps = training_set.n_steps
    marks = {max(1, round(f * steps)): f for f in sorted(curve, reverse=True)}
    _announce(training_set, setting.students, setting.data.n_test * len(marks.keys() | {steps}))
    order = [random.generator(seed, "student", i, "order") for i in range(setting.students)]
    found = train_students(
        lambda i: setting.build(random.generator(seed, "student", i, "init")),
        replace(training_set, recipe=replace(training_set.recipe, lr=lr)),
        order,
        marks=sorted(marks),
    )
    test, classes = setting.data.test.to(setting.device), setting.data.n_classes
    scores = {
        step: score_students(students.logits, test.images, test.labels, distilled.preprocess, classes)
        for step, students in found.items()
    }
    points = [
        CurvePoint(fraction=marks[step], step=step, accuracies=scores[step].accuracies)
        for step in sorted(marks)
    ]
    training = StudentTraining(
        steps=steps,
        lr=lr,
        lr_from=lr_from,
        holdout_scores=on_holdout,
        labels=protocol.labels,
        soft=training_set.teacher is not None or is_soft(training_set.targets),
        augment=training_set.recipe.augment,
        cutmix=training_set.recipe.cutmix,
        preprocess=_named(distilled.preprocess, setting.data),
        soft_labels=None if choice is None else _told(choice, protocol, tuned),
        given_teacher=_given_teacher(protocol),
        precision=protocol.precision,
    )
    return EvaluationResult(scores[steps], points, training)


def is_soft(targets: Tensor) -> bool:
    """Whether some target says more than a class and the weight of its image."""
    return targets.ndim == 2 and bool(((to_host(targets) != 0).sum(1) > 1).any())


def _given_teacher(protocol: Protocol) -> GivenTeacher | None:
    taught = protocol.teacher
    if taught is None or taught.weights is None or taught.architecture is None:
        return None
    return GivenTeacher(architecture=taught.architecture, weights=taught.weights)


def _told(choice: LabelChoice, protocol: Protocol, tuned: Tensors | None) -> SoftLabels:
    """What a record says of the soft labels."""
    told = {str(candidate): score for candidate, score in label_scores(protocol, tuned).items()} or None
    return SoftLabels(
        stop=choice.stop,
        temperature=choice.temperature,
        stored_as=protocol.stored_as,
        holdout_scores=told,
    )


def _announce(training_set: TrainingSet, students: int, then: int) -> None:
    """Say what is to come: so many students, and each of them on `then` images to score."""
    size, steps = training_set.recipe.batch_size, students * training_set.n_steps
    counting.announce(steps, size, training_set.epoch_size, students * then)


@_at_its_precision
def rehearse(distilled: DistilledDataset, setting: EvaluationSetting, students: int) -> None:
    """Train this many students for two steps and score them on a few images, which nobody reads.

    Lazy imports and first calls of libraries are then no part of what is timed next.
    """
    device = setting.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training_set = setting.training_set(distilled)
        found = train_students(
            lambda i: setting.build(random.generator(0, "rehearsal", i, "init")),
            replace(training_set, recipe=replace(training_set.recipe, steps=2, epochs=None)),
            [random.generator(0, "rehearsal", i, "order") for i in range(students)],
        )
        few, labels = (t[:2].to(device) for t in (setting.data.test.images, setting.data.test.labels))
        score_students(found[2].logits, few, labels, distilled.preprocess, setting.data.n_classes)


def learning_rate(
    distilled: DistilledDataset, protocol: Protocol, tuned: Tensors | None
) -> tuple[float, LrFrom, dict[str, float] | None]:
    """The learning rate, where it comes from, and what each rate scored where one was chosen."""
    if tuned is not None and "rates" in tuned:
        means = dict(zip(tuned["rates"].tolist(), tuned["accuracies"].mean(1).tolist(), strict=True))
        best = max(means, key=lambda rate: (means[rate], rate == protocol.recipe.lr))
        return best, "holdout", {f"{rate:g}": mean for rate, mean in means.items()}
    learned = getattr(distilled, "inner_lr", None)
    if protocol.learned_lr and learned is not None:
        return float(learned.detach()), "artifact", None
    return protocol.recipe.lr, "protocol", None


@_at_its_precision
def tune_on_holdout(
    distilled: DistilledDataset, setting: EvaluationSetting, fraction: float
) -> dict[str, Tensor]:
    """What the protocol's soft labels score on a hold-out, then its rates with the best of them.

    Returns:
        {"label_accuracies": [C,S] of S students with each candidate}, where there are several; and what
        `rates_on_holdout` finds, where there are rates.
    """
    protocol, candidates, found = setting.protocol, label_candidates(setting.protocol), dict[str, Tensor]()
    if len(candidates) > 1:
        counting.announce_rounds(len(candidates))
        each = [
            _on_holdout(distilled, setting, fraction, (protocol.recipe.lr,), choice) for choice in candidates
        ]
        found["label_accuracies"] = torch.cat(each)
    if protocol.rates:
        found |= rates_on_holdout(distilled, setting, fraction, label_choice(protocol, found))
    return found


def rates_on_holdout(
    distilled: DistilledDataset,
    setting: EvaluationSetting,
    fraction: float,
    choice: LabelChoice | None = None,
) -> dict[str, Tensor]:
    """Accuracies [R,S] of students trained at each rate [R], on a hold-out of the training set."""
    rates = setting.protocol.rates
    accuracies = _on_holdout(distilled, setting, fraction, rates, choice)
    return {"rates": torch.tensor(rates, dtype=torch.float64), "accuracies": accuracies}


def _on_holdout(
    distilled: DistilledDataset,
    setting: EvaluationSetting,
    fraction: float,
    rates: Sequence[float],
    choice: LabelChoice | None,
) -> Tensor:
    """Accuracies [R,S] of students at each rate, on a hold-out of the training set.

    The hold-out is the same for all methods. A distillation may have used its images, and a teacher has, so
    the figures flatter; they only choose. No image is both trained on as it is and scored: see `_apart`.
    """
    train, n = setting.data.train, setting.students
    _, held = held_out(
        train.labels, setting.data.n_classes, fraction, random.generator(0, "holdout", "rates")
    )
    judges = Split(train.images[held], train.labels[held])
    training_set = setting.training_set(distilled, choice)
    learn, score = _apart(distilled.preprocess.invert(training_set.images), judges.images)
    training_set = replace(
        training_set, images=training_set.images[learn], targets=training_set.targets[learn]
    )
    judges = Split(judges.images[score], judges.labels[score]).to(setting.device)

    _announce(training_set, n * len(rates), len(judges.labels))

    def draws(i: int, purpose: str) -> torch.Generator:  # every rate gets the same students
        return random.generator(setting.seed, "holdout", i % n, purpose)

    found = train_students(
        lambda i: setting.build(draws(i, "init")),
        training_set,
        [draws(i, "order") for i in range(n * len(rates))],
        rates=[rate for rate in rates for _ in range(n)],
    )
    (students,) = found.values()
    scores = score_students(
        students.logits, judges.images, judges.labels, distilled.preprocess, setting.data.n_classes
    )
    return torch.tensor(scores.accuracies, dtype=torch.float64).view(len(rates), n)


def _apart(learned: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the learned images [N,C,H,W] in [0,1] to keep, and which of the held ones (uint8) [M,C,H,W].

    An image that stands in both leaves the held ones; but the learned ones if most of the held ones would go,
    as the set is (nearly) all of the training set then.
    """
    pixels = learned.mul(255).round().clamp(0, 255).to(torch.uint8)
    ours, theirs = ([row.tobytes() for row in t.cpu().flatten(1).numpy()] for t in (pixels, held))
    known, scored = set(ours), set(theirs)
    free = torch.tensor([row not in known for row in theirs])
    if free.float().mean() >= 0.5:
        return torch.ones(len(ours), dtype=torch.bool, device=learned.device), free
    return torch.tensor([row not in scored for row in ours], device=learned.device), torch.ones_like(free)
