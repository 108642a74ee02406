"""Class means: averages of training images. A baseline that is strong on small data sets."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, YOUNG, Prerequisite, Problem
from bench.core.sampling import ClassIndex
from bench.core.transfer import to_device
from methods.blocks.coresets import check_enough
from methods.blocks.parameterise.pixels import Pixels

PIECE = 1000  # images in float64 at a time


@dataclass(frozen=True)
class ClassMean:
    """Each class is split at random into `ipc` parts of equal size; an image is the mean of one part.

    With one image per class this is the mean of the class, whatever the seed.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: means of the training images"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    repeat: bool = field(default=False, metadata=YOUNG)  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Split each class at random into `ipc` parts, and take the mean of each part."""
        check_enough(problem, self.repeat)
        ipc, n_parts = problem.ipc, problem.n_classes * problem.ipc
        labels, device = problem.read_labels(), problem.device
        shuffled = torch.randperm(len(labels), generator=problem.rng("class_mean"))
        index = ClassIndex.of(labels[shuffled], problem.n_classes)
        members = shuffled[index.order]  # class after class
        first = index.offsets[:-1].repeat_interleave(index.counts)
        place = torch.arange(len(members)) - first  # of each image inside its class
        part = labels[members] * ipc + place % ipc

        sums = torch.zeros(n_parts, problem.images[0].numel(), dtype=torch.float64, device=device)
        for rows, parts in zip(members.split(PIECE), part.split(PIECE), strict=True):
            images = problem.images[to_device(rows, device)].flatten(1).double()
            sums.index_add_(0, to_device(parts, device), images)
        means = sums / to_device(part.bincount(minlength=n_parts).clamp(min=1)[:, None], device) / 255
        filled = index.counts.clamp(max=ipc)[:, None]  # parts of each class that hold an image: others repeat
        first_part = ipc * torch.arange(problem.n_classes)[:, None]
        rows = to_device((first_part + torch.arange(ipc) % filled).flatten(), device)
        images = problem.preprocess(means[rows].float().view(-1, *problem.image_shape))
        return Pixels(images, [ipc] * problem.n_classes, problem.preprocess)


METHOD = ClassMean
