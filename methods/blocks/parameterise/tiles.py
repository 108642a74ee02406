"""Tiles: a stored image is put together from crops of real images (RDED; Sun et al., CVPR 2024)."""

import math
from typing import Any

import torch
from torch import Tensor

from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from methods.blocks.crops import cut_crops, draw_crops
from methods.blocks.parameterise.base import (
    Balanced,
    first_logits,
    images_within,
    label_floats,
    random_members,
)
from methods.blocks.parameterise.multi_formation import cut, paste, tile_side
from methods.blocks.parameterise.resample import bilinear, resample

TILE_DECODERS = ("stored", "enlarged")
TILE_INITS = ("real",)


class Tiles(Balanced):
    """Each stored image holds f x f crops of its class; f = 1 stores one crop, enlarged to the full size.

    Either way of decoding stores the same: `ipc` images a class. What students see differs:

    - stored: the n stored images of a class as they are, as in RDED: a student sees f^2 crops at once, each
      at 1/f of its side. A protocol may shuffle the tiles anew for every batch (`decoupled` does).
    - enlarged: each tile up-sampled to a full image, n * f^2 images a class, which is IDC's decoding: tile
      (i, j) of stored image m is image (i * f + j) * n + m of the class.

    Args:
        images: uint8 [n_classes * n,C,H,H], which are not learned, or raw pixels in [0, 1], which are.
        n_classes: number of classes.
        factor: f.
        decoder: "stored" or "enlarged".
        preprocess: how pixels become what networks see.
        common: `label_logits`, `inner_lr` and `inner_momentum` of `Balanced`.

    Raises:
        UserError: the decoder is unknown, or the factor leaves tiles without a pixel.
    """

    images: Tensor

    def __init__(
        self,
        images: Tensor,
        n_classes: int,
        factor: int,
        decoder: str,
        preprocess: Preprocess,
        **common: Tensor | None,
    ) -> None:
        tile_side(images.shape[-1], factor)
        super().__init__(n_classes, shown(decoder, len(images) // n_classes, factor), preprocess, **common)
        if images.dtype == torch.uint8:
            self.register_buffer("images", images)
        else:
            self.learn(images=images)
        self.factor, self.decoder = factor, decoder
        self.tiles = factor if decoder == "stored" else 1

    @staticmethod
    def count(problem: Problem, *, factor: int = 1, decoder: str = "stored", labels: str = "hard") -> int:
        """Stored images per class within the budget, after labels.

        Args:
            problem: the training set and the budget.
            factor: tiles per side of a stored image.
            decoder: "stored" or "enlarged".
            labels: "hard", "class" or "image", see `label_floats`.

        Raises:
            UserError: an argument is invalid, or not even one image per class fits.
        """
        n_classes, size = problem.n_classes, math.prod(problem.image_shape)
        tile_side(problem.image_shape[1], factor)
        choose("decoder", decoder, TILE_DECODERS)

        def floats(n: int) -> int:
            return n_classes * n * size + label_floats(labels, n_classes, shown(decoder, n, factor))

        return images_within(problem, labels, floats)

    @classmethod
    def start(
        cls,
        problem: Problem,
        generator: torch.Generator,
        *,
        factor: int = 1,
        decoder: str = "stored",
        init: str = "real",
        labels: str = "hard",
        smallest: float = 0.08,
    ) -> "Tiles":
        """Learned tiles that start as random crops, each of another real image of the class if possible.

        Args:
            problem: the training set and the budget.
            generator: a CPU generator.
            factor: see `count`; so are `decoder` and `labels`.
            decoder: likewise.
            init: "real".
            labels: likewise.
            smallest: the least share of an image's area that a crop takes.

        Returns:
            The set, on the problem's device.

        Raises:
            UserError: as `count`.
        """
        choose("init", init, TILE_INITS)
        n_classes, (_, side, _) = problem.n_classes, problem.image_shape
        n = cls.count(problem, factor=factor, decoder=decoder, labels=labels)
        members = random_members(problem, n * factor**2, generator)
        crops = draw_crops(len(members), side, smallest, generator)
        images = tiled(problem, members, crops, factor)
        logits = first_logits(labels, n_classes, shown(decoder, n, factor))
        tiles = cls(images, n_classes, factor, decoder, problem.preprocess, label_logits=logits)
        return tiles.to(problem.device)

    def config(self) -> dict[str, Any]:
        """The number of classes, the factor and the decoder."""
        return {"n_classes": self.n_classes, "factor": self.factor, "decoder": self.decoder}

    def _images(self, items: Tensor | None) -> Tensor:
        images, side = self.images, self.images.shape[-1]
        if self.decoder == "stored" or self.factor == 1:
            return self.preprocess(images if items is None else images[items])
        images = images.float().div(255) if images.dtype == torch.uint8 else images
        tiles = cut(images.unflatten(0, (self.n_classes, -1)), self.factor).flatten(0, 1)
        tiles = tiles if items is None else tiles[items]
        return self.preprocess(resample(tiles, bilinear(tiles.shape[-1], side, tiles)))


def shown(decoder: str, n: int, factor: int) -> int:
    """How many images per class n stored ones decode to. Raises UserError for an unknown decoder."""
    return n * factor**2 if choose("decoder", decoder, TILE_DECODERS) == "enlarged" else n


def tiled(problem: Problem, members: Tensor, crops: Tensor, factor: int) -> Tensor:
    """Stored images [n_classes * n,C,H,H] in [0, 1], put together from crops of real images.

    Args:
        problem: the training set.
        members: indices of real images, class after class, int64 [n_classes * n * factor^2]; the
            (q * n + m)-th of a class becomes tile q of its stored image m.
        crops: where the crop of each lies, see `draw_crops`.
        factor: tiles per side.
    """
    side = problem.image_shape[1]
    tiles = cut_crops(problem.images[members].float().div_(255), crops, tile_side(side, factor))
    return paste(tiles.unflatten(0, (problem.n_classes, -1)), factor, side).flatten(0, 1).contiguous()
