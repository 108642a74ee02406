"""The contract of a method: a `Problem` goes in, a `DistilledDataset` comes out.

A method is a frozen dataclass whose fields are the paper's hyper-parameters. The whole of one:

    @dataclass(frozen=True)
    class FirstImages:
        version: ClassVar[int] = 1
        paper: ClassVar[str] = "A. Author, First Images, 2026"
        depends_on: ClassVar[frozenset[str]] = frozenset({IPC})

        def requires(self) -> dict[str, Prerequisite]:
            return {}

        def distill(self, problem: Problem) -> DistilledDataset:
            index = problem.index
            return real_images(problem, [index.members(c)[: problem.ipc] for c in range(problem.n_classes)])

    METHOD = FirstImages
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop
from bench.core.networks.base import Network
from bench.core.preprocess import Preprocess
from bench.core.sampling import ClassIndex

# What a result may depend on, apart from the data set and the hyper-parameters. A method that ignores
# one of them leaves it out of `depends_on`; one artifact then serves all its values.
IPC, ARCHITECTURE, SEED = "ipc", "architecture", "seed"
# metadata of a hyper-parameter that is younger than results: no key holds it at its default
YOUNG = {"young": True}


@dataclass(frozen=True)
class Problem:
    """What a method is given: one training set, one budget, one source of randomness; no test split."""

    images: Tensor  # uint8 [N,C,H,W], on the job's device
    labels: Tensor  # int64 [N]
    n_classes: int
    ipc: int  # images per class; the budget is ipc x classes x C x H x W floats
    preprocess: Preprocess  # uint8 -> what a network sees
    make_net: Callable[[torch.Generator], Network]  # a fresh network of the distillation architecture
    seed: int
    prepared: Mapping[str, Mapping[str, Tensor]]  # role -> tensors of what the method required
    loop: Loop = field(default_factory=Loop)  # the loop of steps: progress, snapshots, resuming
    classes: tuple[str, ...] = ()  # their names, for messages
    host_labels: Tensor | None = None  # of a dry run, whose `labels` have no numbers

    @property
    def device(self) -> torch.device:
        """Where the images are, and where the method computes."""
        return self.images.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, c, h, w = self.images.shape
        return c, h, w

    @property
    def budget(self) -> int:
        """How many floats may be stored: ipc x classes x C x H x W."""
        c, h, w = self.image_shape
        return self.ipc * self.n_classes * c * h * w

    @property
    def index(self) -> ClassIndex:
        """The members of each class, on the host."""
        return ClassIndex.of(self.read_labels(), self.n_classes)

    def read_labels(self) -> Tensor:
        """The labels on the host, int64 [N]."""
        if self.host_labels is not None and self.labels.is_meta:
            return self.host_labels
        return self.labels.cpu()

    def rng(self, *purpose: str | int) -> torch.Generator:
        """A CPU generator for one purpose, derived from the seed; different purposes are independent."""
        return random.generator(self.seed, *purpose)


class Prerequisite(Protocol):
    """Something expensive that methods share, such as expert trajectories: built once and found by its key.

    A frozen dataclass. Its seconds are charged to every method that requires it. One that all seeds share may
    have a field `bank: int = 0`, from which it draws: a sweep with `distill.experts_per_seed` sets it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    version: ClassVar[int]
    depends_on: ClassVar[frozenset[str]]

    def requires(self) -> "dict[str, Prerequisite]":
        """{role: prerequisite} that this one needs; `build` finds them in `problem.prepared[role]`."""
        ...

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Compute its tensors, {name: tensor}; a method finds them in `problem.prepared[role]`."""
        ...


class Method(Protocol):
    """A frozen dataclass whose fields are the paper's hyper-parameters; its module names it as `METHOD`.

    It may have `check(self, problem: Problem) -> None`, which raises UserError for what `distill` would
    refuse: a network, a budget, too few images. `plan` calls it with the training set, nothing prepared, and
    a `make_net` whose networks know shapes only (torch's meta device): it computes nothing.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    version: ClassVar[int]  # bumped when the numbers may move
    paper: ClassVar[str]
    depends_on: ClassVar[frozenset[str]]

    def requires(self) -> dict[str, Prerequisite]:
        """{role: prerequisite} that the method needs; `distill` finds them in `problem.prepared[role]`."""
        ...

    def distill(self, problem: Problem) -> DistilledDataset:
        """Distill the problem's training set into a set that fits its budget.

        Args:
            problem: images, labels, budget, networks, and a generator for every random draw.

        Returns:
            The distilled set; it is saved, and scored from its file.

        Raises:
            UserError: the hyper-parameters do not suit the data.
            Diverged: a loss is not finite.
        """
        ...


def takes_exact_gradients(method: Method) -> bool:
    """Whether it differentiates the steps of a training, which a coarser arithmetic than fp32 spoils.

    Such a method says so by an attribute `exact_gradients = True`.
    """
    return bool(getattr(method, "exact_gradients", False))


def learns_labels(method: Method) -> bool:
    """Whether its sets store soft labels: `labels` of such a method is not "hard"."""
    return getattr(method, "labels", "hard") != "hard"


def hyperparameters(method: Method) -> dict[str, Any]:
    """A method's hyper-parameters as keys and records hold them, without `YOUNG` ones at their default."""
    young = {f.name: f.default for f in fields(method) if "young" in f.metadata}
    return {k: v for k, v in asdict(method).items() if k not in young or v != young[k]}


def images_in_one(method: Method) -> int:
    """Along a side, the images that multi-formation stores in one; 1 for methods that store each by "
    "itself."""
    values = asdict(method)
    formed = values.get("parameterisation", "multi_formation") == "multi_formation"
    factor: int = values.get("factor", 1) if formed else 1
    return factor
