"""CutMix (Yun et al., ICCV 2019), with explicit random draws."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core import timing
from bench.core.transfer import to_device

CONSTANTS = {"box": "even"}  # of the keys of jobs that use it


@dataclass(frozen=True)
class CutMix:
    """CutMix of one batch of N images: each image shows its partner inside the same box.

    Args:
        partner: position of each image's partner, int64 [N], on the CPU.
        rows: of the box.
        columns: of the box.
        weight: the fraction of an image outside the box.
    """

    partner: Tensor
    rows: slice
    columns: slice
    weight: float


def draw_cutmix(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> CutMix:
    """Draw the partners and the box of one batch.

    With lambda ~ Beta(1, 1), the sides of the box are sqrt(1 - lambda) of the image's, rounded down to an
    even number as in the code of CutMix and of IDC; its centre is uniform over the image, and the box is
    clipped at the borders. A box may be empty.

    Args:
        shape: of the batch, (N, C, H, W).
        generator: a CPU generator.

    Returns:
        The draw, for `apply_cutmix`.

    References:
        Yun et al., CutMix, ICCV 2019.
    """
    n, _, height, width = shape
    area, *centre = torch.rand(3, generator=generator).tolist()
    spans = []
    for length, at in zip((height, width), centre, strict=True):
        half, middle = int(length * area**0.5) // 2, int(at * length)
        spans.append(slice(max(middle - half, 0), min(middle + half, length)))
    rows, columns = spans
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return CutMix(torch.randperm(n, generator=generator), rows, columns, 1 - pasted)


@timing.charged("augment")
def apply_cutmix(images: Tensor, drawn: CutMix) -> Tensor:
    """Paste each partner's box into images [N,C,H,W]; differentiable in the images.

    The loss of the batch is weight L(targets) + (1 - weight) L(targets[partner]).
    """
    inside = torch.zeros(images.shape[2:], dtype=torch.bool)
    inside[drawn.rows, drawn.columns] = True
    partners = images[to_device(drawn.partner, images.device)]
    return torch.where(to_device(inside, images.device), partners, images)
