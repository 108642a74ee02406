"""What students see of images that hold several crops: patches shuffled, then a random resized crop.

As in RDED's evaluation (Sun et al., CVPR 2024; validation/main.py of the authors' code). There crops have
whole pixels and are resized with antialiasing; here they are sampled bilinearly where they lie.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.transfer import to_device

RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height
TRIES = 10  # to draw a crop that fits; then it is the whole image, as in torchvision
TILES = "tiles"  # as many as the images of a set show; see `resolve_tiles`
TILE_OPERATIONS = {TILES: 1} | {f"{TILES}{factor}": factor for factor in range(2, 6)}


@dataclass(frozen=True)
class TileDraw:
    """A stage for images of factor x factor tiles, drawn for each of G groups.

    Args:
        factor: tiles a side.
        rows: where each row of tiles goes, a permutation int64 [G,factor].
        columns: where each column of tiles goes, int64 [G,factor].
        boxes: x, y, width and height of the crop, as fractions of the image [G,4].
    """

    factor: int
    rows: Tensor
    columns: Tensor
    boxes: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Shuffle and crop images [G*B,C,H,W]; differentiable in the images."""
        size = len(images) // len(self.rows)
        rows, columns, boxes = (
            to_device(t.repeat_interleave(size, 0), images.device)
            for t in (self.rows, self.columns, self.boxes)
        )
        return _resized_crop(_shuffled(images, rows, columns), boxes.to(images.dtype))


def _shuffled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    n, _, height, width = images.shape
    down, across = _sources(rows, height), _sources(columns, width)
    image = torch.arange(n, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[image, down[:, :, None], across[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _sources(places: Tensor, side: int) -> Tensor:
    """Which pixel comes to each place, [n,side]; the last tile is larger where the side does not divide."""
    factor = places.shape[1]
    pixels = torch.arange(side, device=places.device)
    tile = (pixels // max(side // factor, 1)).clamp(max=factor - 1)
    return (places[:, tile] * side + pixels).argsort(1)


def _resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    x, y, width, height = boxes.unbind(1)
    zero = torch.zeros_like(x)
    rows = [
        torch.stack([width, zero, 2 * x + width - 1], 1),
        torch.stack([zero, height, 2 * y + height - 1], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def resolve_tiles(strategy: str, factor: int) -> str:
    """The strategy with `tiles` as what it is for images of factor x factor tiles; without it for 1."""
    stages = [stage for stage in strategy.split("+") if stage != TILES or factor > 1]
    named = [f"{TILES}{factor}" if stage == TILES else stage for stage in stages]
    return "+".join(named) or "none"


def draw_tiles(operation: str, groups: int, generator: torch.Generator) -> TileDraw:
    """Draw a shuffle and a crop of at least 1 / factor of the area for each group."""
    factor = TILE_OPERATIONS[operation]
    rows, columns = (torch.rand(groups, factor, generator=generator).argsort(1) for _ in range(2))
    area, shape = torch.rand(2, TRIES, groups, generator=generator)
    area = area * (1 - 1 / factor) + 1 / factor
    low, high = torch.tensor(RATIO).log()
    ratio = (shape * (high - low) + low).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 2)  # [TRIES,G,2]
    fits = (sides <= 1).all(2)
    first = fits.float().argmax(0)  # of several largest the first
    chosen = torch.where(fits.any(0)[:, None], sides[first, torch.arange(groups)], 1.0)
    corner = torch.rand(groups, 2, generator=generator) * (1 - chosen)
    return TileDraw(factor, rows, columns, torch.cat([corner, chosen], 1))
