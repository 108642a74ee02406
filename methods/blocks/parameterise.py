"""How a distilled set is stored. A parameterisation knows no network."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.artifact import DistilledDataset, Preprocess


class Pixels(DistilledDataset):
    """Plain images, class after class, so that position implies the label and labels cost nothing.

    `images` is [sum(counts),C,H,W]: floats as networks see them (learnable), or uint8 (real images, kept as
    they are). `counts[c]` images belong to class c.
    """

    images_as_bytes = frozenset({"images"})

    def __init__(self, images: Tensor, counts: list[int], preprocess: Preprocess) -> None:
        super().__init__(preprocess)
        if len(images) != sum(counts):
            raise ValueError(f"{len(images)} images for {sum(counts)} labels")
        self.images: Tensor
        if images.dtype == torch.uint8:
            self.register_buffer("images", images)
        else:
            self.images = nn.Parameter(images)
        self.counts = list(counts)
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(self.counts))
        self.labels: Tensor
        self.register_buffer("labels", labels.to(images.device), persistent=False)

    def config(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, labels = (
            (self.images, self.labels) if items is None else (self.images[items], self.labels[items])
        )
        return (self.preprocess(images) if images.dtype == torch.uint8 else images), labels
