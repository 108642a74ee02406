"""CutMix of one batch (Yun et al., ICCV 2019), with explicit draws."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core import timing


@dataclass(frozen=True)
class CutMix:
    """CutMix of one batch of N images (Yun et al., ICCV 2019): each shows its partner inside one box.

    `partner` is int64 [N] on the CPU; `weight` is what is left of an image: 1 - the fraction pasted over.
    """

    partner: Tensor
    rows: slice
    columns: slice
    weight: float


def draw_cutmix(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> CutMix:
    """Partners and a box for a batch [N,C,H,W]: lambda ~ Beta(1, 1), a side of sqrt(1 - lambda), clipped."""
    n, _, height, width = shape
    area, *centre = torch.rand(3, generator=generator).tolist()
    spans = []
    for length, at in zip((height, width), centre, strict=True):
        side = int(length * area**0.5 + 0.5)
        first = int(at * length) - side // 2
        spans.append(slice(max(first, 0), min(first + side, length)))
    rows, columns = spans
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return CutMix(torch.randperm(n, generator=generator), rows, columns, 1 - pasted)


@timing.charged("augment")
def apply_cutmix(images: Tensor, drawn: CutMix) -> Tensor:
    """Paste the partners' boxes into [N,C,H,W]; differentiable in the images.

    The loss of the batch is weight L(targets) + (1 - weight) L(targets[partner]).
    """
    inside = torch.zeros(images.shape[2:], dtype=torch.bool)
    inside[drawn.rows, drawn.columns] = True
    there = functools.partial(Tensor.to, device=images.device, non_blocking=True)
    return torch.where(there(inside), images[there(drawn.partner)], images)
