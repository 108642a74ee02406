"""Real images with weights: how much each counts in the students' loss."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bench.core.preprocess import Preprocess
from methods.blocks.parameterise.pixels import Pixels


class WeightedPixels(Pixels):
    """Plain images, class after class, each with a weight, which is stored.

    The targets are onehot x weight. Cross-entropy is linear in its targets, so that the loss of a batch is
    the mean of weight x cross-entropy wherever it is computed; the mean weight should be 1. Weights count
    under all labels that a protocol gives the images.

    Args:
        images: as in `Pixels`.
        weights: above 0, [sum(counts)].
        counts: as in `Pixels`.
        preprocess: how pixels become what networks see.

    Raises:
        ValueError: images, weights and counts do not fit, or a weight is not above 0.
    """

    weights: Tensor

    def __init__(
        self, images: Tensor, weights: Tensor, counts: list[int], preprocess: Preprocess, **common: Any
    ) -> None:
        super().__init__(images, counts, preprocess, **common)
        if weights.shape != (len(images),):
            raise ValueError(f"weights {list(weights.shape)} for {len(images)} images")
        if self.label_logits is not None:
            raise ValueError("weighted images have hard labels")
        if not bool((weights > 0).all()):
            raise ValueError("weights must be above 0")
        self.register_buffer("weights", weights)

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The images, and onehot targets times the weights, [n,K]."""
        images, labels = super().decode(items)
        weights = self.weights if items is None else self.weights[items]
        return images, F.one_hot(labels, self.n_classes) * weights[:, None]
