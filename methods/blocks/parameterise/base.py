"""What all distilled sets share: classes of equal size, targets that may be learned, and the budget."""

import bisect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from bench.core.sampling import ClassIndex, ClassSampler

LABEL_KINDS = (
    "hard",
    "class",
    "image",
)  # the class of an image's position; learned, one a class or one an image
LABEL_CONFIDENCE = 0.9  # that a learned target starts with in its own class


class Balanced(DistilledDataset):
    """A set whose decoded images stand class after class, `per_class` of each: item c * per_class + i.

    `label_logits` [n_classes,K], one row a class, or [n_classes * per_class,K], one row a decoded image:
    softmax gives the targets. Without it position implies the target and labels cost nothing. `inner_lr` and
    `inner_momentum` (0-dim) are the learned step of an inner loop; a student is trained with them. All three
    are stored and counted. Every parameter keeps the dtype that it is given.
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
        """Register tensors, by name, as what an outer optimiser learns and the file holds; None: absent."""
        for name, tensor in tensors.items():
            self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))

    @timing.charged("decode")
    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalised images [n,C,H,W] and targets: int64 [n] when hard, probabilities [n,K] when learned.

        `items` int64 [n] are positions c * per_class + i among the decoded images, in any order.
        """
        logits = self._logits(items)
        targets = _pick(self.labels, items) if logits is None else logits.softmax(1)
        return self._images(items), targets

    def _images(self, items: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _logits(self, items: Tensor | None) -> Tensor | None:
        """[n,K], or None for hard targets."""
        if self.label_logits is None:
            return None
        by_class = len(self.label_logits) == self.n_classes
        return _pick(self.label_logits, _pick(self.labels, items) if by_class else items)


def _pick(rows: Tensor, items: Tensor | None) -> Tensor:
    return rows if items is None else rows[items]


def kappa(n_classes: int) -> float:
    """The logit of the true class, all others 0, to which softmax gives CONFIDENCE."""
    return math.log(LABEL_CONFIDENCE / (1 - LABEL_CONFIDENCE) * max(n_classes - 1, 1))


def label_floats(labels: str, n_classes: int, per_class: int) -> int:
    """What targets take: nothing, a row a class, or a row an image. Raises UserError for other `labels`."""
    rows = {"hard": 0, "class": n_classes, "image": n_classes * per_class}
    return rows[choose("kind of labels", labels, LABEL_KINDS)] * n_classes


def first_logits(labels: str, n_classes: int, per_class: int) -> Tensor | None:
    """The `label_logits` that a set starts from, as `label_floats` counts them."""
    if label_floats(labels, n_classes, per_class) == 0:
        return None
    certain = kappa(n_classes) * torch.eye(n_classes)
    return certain if labels == "class" else certain.repeat_interleave(per_class, 0)


def most_within(budget: int, floats: Callable[[int], int]) -> int:
    """The largest n >= 1 for which floats(n), which grows with n, is within the budget; 0 if none is."""
    return bisect.bisect_right(range(1, budget + 1), budget, key=floats)


def images_within(problem: Problem, labels: str, floats: Callable[[int], int], beside: str = "") -> int:
    """`most_within` the problem's budget. Raises UserError where not even one image per class fits."""
    n = most_within(problem.budget, floats)
    if n < 1:
        raise UserError(
            f"{labels} labels{beside} leave no room for one image per class in {problem.budget:,} floats: "
            f"raise ipc above {problem.ipc}" + ("" if labels == "hard" else ", or take hard labels")
        )
    return n


def random_members(problem: Problem, per_class: int, generator: torch.Generator) -> Tensor:
    """Which real images to take, int64 [n_classes * per_class], class by class, different where possible."""
    index = ClassIndex.of(problem.labels, problem.n_classes)
    return ClassSampler(index, per_class, generator).next().flatten()
