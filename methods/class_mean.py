"""Class means: what averaging alone gives. A baseline that keeps small data sets honest."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, Prerequisite, Problem
from bench.core.sampling import ClassIndex
from methods.blocks.parameterise.pixels import Pixels

PIECE = 1000  # images in float64 at a time


@dataclass(frozen=True)
class ClassMean:
    """Each class is cut at random into `ipc` parts of equal size; an image is the mean of a part's pixels.

    With one image per class that is the mean of the class, for every seed.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: means of the training images"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    def requires(self) -> dict[str, Prerequisite]:
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        images, labels, ipc = problem.images, problem.labels, problem.ipc
        shuffled = torch.randperm(len(labels), generator=problem.rng("class_mean")).to(labels.device)
        index = ClassIndex.of(labels[shuffled], problem.n_classes)
        place = torch.arange(len(labels), device=labels.device)
        place = place - index.offsets[:-1].repeat_interleave(index.counts)  # inside of its class
        part = torch.empty_like(labels)
        members = shuffled[index.order]
        part[members] = labels[members] * ipc + place % ipc
        sums = torch.zeros(
            problem.n_classes * ipc, images[0].numel(), dtype=torch.float64, device=images.device
        )
        for rows in torch.arange(len(labels), device=labels.device).split(PIECE):
            sums.index_add_(0, part[rows], images[rows].flatten(1).double())
        means = sums / part.bincount(minlength=len(sums))[:, None] / 255
        pixels = problem.preprocess(means.float().view(-1, *problem.image_shape))
        return Pixels(pixels, [ipc] * problem.n_classes, problem.preprocess)


METHOD = ClassMean
