"""Random crops, resized: a crop is one small matrix for its rows and one for its columns.

Cutting is then two matrix products, whose gradient is the same on every run, on a GPU too.
"""

import torch
from torch import Tensor

from bench.core.transfer import to_device

TRIES = 10  # sizes drawn for a crop before the whole image is taken


def draw_crops(
    n: int, side: int, smallest: float, generator: torch.Generator, stretch: float = 1.0
) -> Tensor:
    """Draw where crops lie: their share of the area is uniform, and the logarithm of width / height is.

    A size that is no part of the image is drawn again, up to `TRIES` times in all.

    Args:
        n: how many.
        side: of the images, in pixels.
        smallest: the least share of an image's area; 1 takes whole images.
        generator: a CPU generator.
        stretch: the largest width / height, and the inverse of the smallest; 1 gives squares.

    Returns:
        First pixel and number of pixels of the rows and of the columns, int64 [n,2,2], on the CPU.

    References:
        Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6; torchvision's RandomResizedCrop.
    """
    share, ratio = torch.rand(2, TRIES, n, generator=generator, dtype=torch.float64)
    area, ratio = side**2 * (smallest + (1 - smallest) * share), stretch ** (2 * ratio - 1)
    sizes = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], -1).round().long()  # TRIES,n,2
    fits = ((sizes >= 1) & (sizes <= side)).all(-1)
    taken = sizes[fits.long().argmax(0), torch.arange(n)].where(fits.any(0)[:, None], side)
    room = torch.rand(n, 2, generator=generator, dtype=torch.float64) * (side - taken + 1)
    return torch.stack([room.long(), taken], -1)


def crop_matrices(span: Tensor, side: int, to: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrices [n,to,side] that resize some pixels of a line of `side` to `to`: linear, with antialias.

    Args:
        span: first pixel and number of pixels, int64 [n,2].
        side: pixels of the line.
        to: pixels of the result.
        dtype: of the matrices; they have the device of `span`.
    """
    first, length = span[:, 0, None, None], span[:, 1, None, None]
    at = torch.arange(side, device=span.device)
    scale = length.double() / to
    centre = first + (torch.arange(to, device=span.device)[:, None] + 0.5) * scale
    weight = (1 - (at + 0.5 - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    weight = weight * ((at >= first) & (at < first + length))
    return (weight / weight.sum(-1, keepdim=True)).to(dtype)


def cut_crops(images: Tensor, crops: Tensor, to: int) -> Tensor:
    """Cut a crop out of each image and resize it.

    Args:
        images: floats [n,C,H,H].
        crops: see `draw_crops`, [n,2,2].
        to: side of the result.

    Returns:
        The crops [n,C,to,to]; differentiable in the images.
    """
    spans = to_device(crops, images.device).unbind(1)
    rows, columns = (crop_matrices(span, images.shape[-1], to, images.dtype)[:, None] for span in spans)
    return rows @ images @ columns.mT
