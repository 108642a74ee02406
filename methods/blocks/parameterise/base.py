"""Shared by all distilled sets: classes of equal size, targets that may be learned, and the budget."""

import bisect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.errors import OverBudget
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from bench.core.sampling import ClassSampler

LABEL_KINDS = (
    "hard",
    "class",
    "image",
)  # given by an image's position; or learned, for each class or for each image
MOST_IMAGES = 2**24  # that a set decodes to: a dozen times ImageNet
LABEL_CONFIDENCE = 0.9  # initial probability of the true class in a learned target


class Balanced(DistilledDataset):
    """A set whose decoded images are ordered class after class; image i of class c is c * per_class + i.

    The last three arguments are stored, and count towards the budget. Parameters keep the dtype they are
    given.

    Args:
        n_classes: number of classes.
        per_class: decoded images per class.
        preprocess: how pixels become what networks see.
        label_logits: softmax gives the targets: [n_classes,K], a row for each class, or
            [n_classes * per_class,K], a row for each decoded image. Without it the position of an image
            determines its target, and nothing is stored for labels.
        inner_lr: a learned learning rate, 0-dim, with which students are trained.
        inner_momentum: a learned momentum, 0-dim, with which students are trained.

    Raises:
        ValueError: the shape of a tensor does not fit.
    """

    labels: Tensor  # int64, the class of each decoded image; not stored
    label_logits: nn.Parameter | None
    inner_lr: nn.Parameter | None
    inner_momentum: nn.Parameter | None

    def __init__(
        self,
        n_classes: int,
        per_class: int,
        preprocess: Preprocess,
        *,
        label_logits: Tensor | None = None,
        inner_lr: Tensor | None = None,
        inner_momentum: Tensor | None = None,
    ) -> None:
        super().__init__(preprocess)
        if n_classes < 1 or not 0 <= n_classes * per_class <= MOST_IMAGES:
            raise ValueError(f"{n_classes} classes of {per_class} images are no set")
        self.n_classes, self.per_class = n_classes, per_class
        sizes = (n_classes, n_classes * per_class)
        if label_logits is not None and (len(label_logits) not in sizes or label_logits.dim() != 2):
            raise ValueError(
                f"label_logits {list(label_logits.shape)} with {sizes[0]} classes, {sizes[1]} images"
            )
        if any(number is not None and number.dim() for number in (inner_lr, inner_momentum)):
            raise ValueError("inner_lr and inner_momentum are single numbers (0-dim)")
        self.learn(label_logits=label_logits, inner_lr=inner_lr, inner_momentum=inner_momentum)
        self.register_buffer("labels", torch.arange(n_classes).repeat_interleave(per_class), persistent=False)

    def learn(self, **tensors: Tensor | None) -> None:
        """Register tensors by name as learned parameters, which are stored; None for an absent one."""
        for name, tensor in tensors.items():
            self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))

    @timing.charged("decode")
    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The images and their targets; differentiable in the parameters.

        Args:
            items: positions c * per_class + i of the images to decode, int64 [n], in any order; by default
                all images.

        Returns:
            Normalised images [n,C,H,W], and targets: classes int64 [n] if hard, probabilities [n,K] if
            learned.
        """
        logits = self._logits(items)
        targets = _pick(self.labels, items) if logits is None else logits.softmax(1)
        return self._images(items), targets

    def _images(self, items: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _logits(self, items: Tensor | None) -> Tensor | None:
        """The logits of the targets [n,K], or None for hard targets."""
        if self.label_logits is None:
            return None
        by_class = len(self.label_logits) == self.n_classes
        return _pick(self.label_logits, _pick(self.labels, items) if by_class else items)


def _pick(rows: Tensor, items: Tensor | None) -> Tensor:
    return rows if items is None else rows[items]


def kappa(n_classes: int) -> float:
    """The logit of the true class for which softmax gives LABEL_CONFIDENCE, all other logits being 0."""
    return math.log(LABEL_CONFIDENCE / (1 - LABEL_CONFIDENCE) * max(n_classes - 1, 1))


def label_floats(labels: str, n_classes: int, per_class: int) -> int:
    """How many floats the targets take.

    Args:
        labels: "hard", nothing; "class", a row of logits for each class; "image", one for each decoded image.
        n_classes: number of classes.
        per_class: decoded images per class.

    Returns:
        The number of floats.

    Raises:
        UserError: `labels` is something else.
    """
    rows = {"hard": 0, "class": n_classes, "image": n_classes * per_class}
    return rows[choose("kind of labels", labels, LABEL_KINDS)] * n_classes


def first_logits(labels: str, n_classes: int, per_class: int) -> Tensor | None:
    """The initial `label_logits` for the arguments of `label_floats`; None for hard labels."""
    if label_floats(labels, n_classes, per_class) == 0:
        return None
    certain = kappa(n_classes) * torch.eye(n_classes)
    return certain if labels == "class" else certain.repeat_interleave(per_class, 0)


def rows_per_class(rows: Tensor, n_classes: int) -> int:
    """How many of the rows [n_classes * n,...] each class has. Raises ValueError if they are not as many."""
    if n_classes < 1 or len(rows) == 0 or len(rows) % n_classes:
        raise ValueError(f"{len(rows)} images are not as many for each of {n_classes} classes")
    return len(rows) // n_classes


def most_within(budget: int, floats: Callable[[int], int]) -> int:
    """The largest n >= 1 whose floats(n), which increases with n, is within the budget; 0 if none is."""
    return bisect.bisect_right(range(1, budget + 1), budget, key=floats)


def images_within(problem: Problem, labels: str, floats: Callable[[int], int], beside: str = "") -> int:
    """The largest number of images per class within the problem's budget.

    Args:
        problem: its budget counts.
        labels: kind of labels, for the error message.
        floats: n images per class -> floats of the whole set.
        beside: what else is stored, for the error message.

    Returns:
        Images per class, at least 1.

    Raises:
        UserError: not even one image per class fits.
    """
    n = most_within(problem.budget, floats)
    if n < 1:
        raise OverBudget(
            f"{labels} labels{beside} leave no room for one image per class in {problem.budget:,} floats: "
            f"raise ipc above {problem.ipc}" + ("" if labels == "hard" else ", or take hard labels")
        )
    return n


def random_members(problem: Problem, per_class: int, generator: torch.Generator) -> Tensor:
    """Draw real images class by class, different ones if possible: indices int64 [n_classes * per_class]."""
    return ClassSampler(problem.index, per_class, generator, problem.device).next().flatten()
