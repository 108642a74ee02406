"""Coresets by score: the images of each class that a network found easiest, hardest, or in between."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.sampling import ClassIndex
from bench.core.transfer import to_host
from methods.blocks.coresets import check_enough, take
from methods.blocks.dynamics import Dynamics
from methods.blocks.parameterise.pixels import Pixels

Pick = Literal["easiest", "median", "hardest"]


def select_by_score(problem: Problem, hardness: Tensor, pick: Pick, repeat: bool = False) -> Pixels:
    """Choose `ipc` real images of each class by how hard they are.

    Args:
        problem: the training set, and the generator of the draws between equals.
        hardness: of each training image [N]; larger is harder.
        pick: the easiest first, the hardest first, or those in the middle of their class.
        repeat: a class of fewer than `ipc` images gives all of them, again and again in the order chosen.

    Returns:
        The chosen images, uint8.

    Raises:
        UserError: a class has fewer than `ipc` images, without `repeat`.
    """
    check_enough(problem, repeat)
    n = len(problem.images)
    shuffled = torch.randperm(n, generator=problem.rng("scores", "equals"))
    ranked = shuffled[to_host(hardness)[shuffled].argsort(stable=True, descending=pick == "hardest")]
    index = ClassIndex.of(problem.read_labels()[ranked], problem.n_classes)
    sizes = index.counts.clamp(max=problem.ipc)
    skipped = (index.counts - sizes) // 2 if pick == "median" else torch.zeros_like(sizes)
    return take(problem, ranked[index.order], index.offsets[:-1] + skipped, sizes)


@dataclass(frozen=True)
class ScoreCoreset:
    """What all coresets by score share. A subclass says what makes an image hard.

    Deviations of all: within each class, as in distillation (the papers prune the whole set); the network is
    asked about all images after each epoch, in evaluation mode (some authors: as batches come); at a constant
    learning rate; equals are drawn at random. The papers keep the hardest of half a training set: of a few
    images a class, the hardest are the worst to learn from, so the default is the easiest.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    network_epochs: Annotated[int, Gt(0)] = 40  # of the training that images are scored by
    pick: Pick = "easiest"
    repeat: bool = False  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """A training on the real set, and what its network answered."""
        return {"dynamics": Dynamics(self.network_epochs)}

    def hardness(self, dynamics: dict[str, Tensor]) -> Tensor:
        """How hard each image is [N], from what `Dynamics` kept; larger is harder."""
        raise NotImplementedError

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Rank the images of each class, and take `ipc` of them."""
        hardness = self.hardness(dict(problem.prepared["dynamics"]))
        return select_by_score(problem, hardness, self.pick, self.repeat)
