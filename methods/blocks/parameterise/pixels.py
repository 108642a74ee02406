"""Plain images: coresets store real ones, and most methods learn them."""

import math
from typing import Any

import torch
from torch import Tensor

from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from methods.blocks.parameterise.base import (
    Balanced,
    first_logits,
    images_within,
    label_floats,
    random_members,
)

PIXEL_INITS = ("real", "noise", "unit")


class Pixels(Balanced):
    """Plain images, class after class.

    Args:
        images: [sum(counts),C,H,W], floats as networks see them, which are learned, or uint8, which are not.
        counts: images of each class. Only coresets have classes of different sizes: their `per_class` is the
            size of the first class, and their labels are hard.
        preprocess: how pixels become what networks see.
        common: `label_logits`, `inner_lr` and `inner_momentum` of `Balanced`.

    Raises:
        ValueError: images and counts do not fit, or classes of different sizes have learned labels.
    """

    images: Tensor

    def __init__(
        self, images: Tensor, counts: list[int], preprocess: Preprocess, **common: Tensor | None
    ) -> None:
        super().__init__(len(counts), counts[0], preprocess, **common)
        if len(images) != sum(counts):
            raise ValueError(f"{len(images)} images for {sum(counts)} labels")
        if self.label_logits is not None and len(set(counts)) > 1:
            raise ValueError("learned labels need classes of equal size")
        if images.dtype == torch.uint8:
            self.register_buffer("images", images)
        else:
            self.learn(images=images)
        self.counts = list(counts)
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(self.counts))
        self.labels = labels.to(images.device)

    @staticmethod
    def count(problem: Problem, labels: str = "hard") -> int:
        """Images per class within the budget, after the labels. Raises UserError if not even one fits."""
        n_classes, size = problem.n_classes, math.prod(problem.image_shape)
        return images_within(
            problem, labels, lambda n: n_classes * n * size + label_floats(labels, n_classes, n)
        )

    @classmethod
    def start(
        cls, problem: Problem, generator: torch.Generator, *, init: str = "real", labels: str = "hard"
    ) -> "Pixels":
        """The initial set: as many images per class as fit the budget after the labels; `ipc` if hard.

        Args:
            problem: the training set and the budget.
            generator: a CPU generator.
            init: "real", random real images without replacement; "noise", N(0, 1) in normalised space;
                "unit", the same with each image scaled to unit l2 norm (RaT-BPTT).
            labels: "hard", "class" or "image", see `label_floats`.

        Returns:
            The set, on the problem's device.

        Raises:
            UserError: an argument is invalid, or not even one image per class fits.
        """
        choose("init", init, PIXEL_INITS)
        n_classes, n = problem.n_classes, cls.count(problem, labels)
        if init == "real":
            images = problem.preprocess(problem.images[random_members(problem, n, generator)])
        else:
            noise = torch.randn((n_classes * n, *problem.image_shape), generator=generator)
            norm = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1) if init == "unit" else 1.0
            images = noise / norm
        logits = first_logits(labels, n_classes, n)
        pixels = cls(images, [n] * n_classes, problem.preprocess, label_logits=logits)
        return pixels.to(problem.device)

    def config(self) -> dict[str, Any]:
        """The number of images of each class."""
        return {"counts": self.counts}

    def _images(self, items: Tensor | None) -> Tensor:
        images = self.images if items is None else self.images[items]
        return self.preprocess(images) if images.dtype == torch.uint8 else images
