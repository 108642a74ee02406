"""Multi-formation: a stored image contains several smaller ones (IDC; Kim et al., ICML 2022, section 3.2)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from methods.blocks.parameterise.base import (
    Balanced,
    first_logits,
    images_within,
    label_floats,
    random_members,
    rows_per_class,
)
from methods.blocks.parameterise.resample import bilinear, resample, shrink

DECODERS = ("uniform", "multi_scale", "bounded", "learnable")
FORMATION_INITS = ("mix", "real", "noise")
CAP = 128  # most decoded images per class of the bounded decoder
GREY_LEVEL = 0.5  # padding at the bottom and on the right of an image that does not divide into tiles


class MultiFormation(Balanced):
    """Stored images are cut into f x f tiles, each of which is up-sampled to a full image of the same class.

    Tile (i, j) of stored image m, of the n of a class, decodes to image (i * f + j) * n + m of the class.
    The decoders are:

    - uniform: each image at scale f; n * f^2 images per class.
    - multi_scale: each image at each scale 1..f, in this order; n * (1 + 4 + ... + f^2) images per class.
    - bounded: each image at one scale, the first ones at f, the last ones at 1; at most `CAP` per class.
    - learnable: uniform, with a learned kernel that up-samples the rows and columns of a tile. Its H * s
      floats count: there is one stored image per class less, and at ipc 1 it does not fit.

    Args:
        images: raw pixels in [0, 1], but not clamped, [n_classes * n,C,H,H].
        n_classes: number of classes.
        factor: f.
        decoder: "uniform", "multi_scale", "bounded" or "learnable".
        preprocess: how pixels become what networks see.
        kernel: of the learnable decoder, [H,s] with s = ceil(H / f).
        common: `label_logits`, `inner_lr` and `inner_momentum` of `Balanced`.

    Raises:
        ValueError: a kernel is missing, or there is one for another decoder.
        UserError: the factor leaves tiles without a pixel, or there are more images than the bounded decoder
            takes.
    """

    images: nn.Parameter
    kernel: nn.Parameter | None

    def __init__(
        self,
        images: Tensor,
        n_classes: int,
        factor: int,
        decoder: str,
        preprocess: Preprocess,
        *,
        kernel: Tensor | None = None,
        **common: Tensor | None,
    ) -> None:
        if (kernel is None) == (decoder == "learnable"):
            raise ValueError(f"the {decoder} decoder {'needs a' if kernel is None else 'has no'} kernel")
        choose("decoder", decoder, DECODERS)
        tile_side(images.shape[-1], factor)
        n = rows_per_class(images, n_classes)
        _check(decoder, n, factor, images.shape[-1])
        super().__init__(n_classes, formed(decoder, n, factor), preprocess, **common)
        self.learn(images=images, kernel=kernel)
        self.factor, self.decoder = factor, decoder

    @staticmethod
    def count(problem: Problem, *, factor: int = 2, decoder: str = "uniform", labels: str = "hard") -> int:
        """Stored images per class within the budget, after labels and kernel.

        Args:
            problem: the training set and the budget.
            factor: see `start`; so are the others.
            decoder: likewise.
            labels: likewise.

        Raises:
            UserError: as `start`.
        """
        choose("decoder", decoder, DECODERS)
        n_classes, (_, side, _) = problem.n_classes, problem.image_shape
        tile = tile_side(side, factor)
        kernel = side * tile if decoder == "learnable" else 0

        def floats(n: int) -> int:
            pixels = n_classes * n * math.prod(problem.image_shape)
            return pixels + kernel + label_floats(labels, n_classes, formed(decoder, n, factor))

        beside = f" and a kernel of {kernel:,} floats" if kernel else ""
        n = images_within(problem, labels, floats, beside)
        _check(decoder, n, factor, side)
        return n

    @classmethod
    def start(
        cls,
        problem: Problem,
        generator: torch.Generator,
        *,
        factor: int = 2,
        decoder: str = "uniform",
        init: str = "mix",
        labels: str = "hard",
    ) -> "MultiFormation":
        """The initial set: as many stored images per class as fit the budget after labels and kernel.

        Args:
            problem: the training set and the budget.
            generator: a CPU generator.
            factor: f, tiles per side of a stored image.
            decoder: "uniform", "multi_scale", "bounded" or "learnable".
            init: "mix", each tile is another random real image of the class, shrunk; "real", whole real
                images; "noise", clamp(N(0, 1) / 4 + 1/2, 0, 1).
            labels: "hard", "class" or "image", see `label_floats`.

        Returns:
            The set, on the problem's device.

        Raises:
            UserError: an argument is invalid, no image fits the budget, the factor leaves tiles without a
                pixel, or there are more images than the bounded decoder takes.
        """
        choose("init", init, FORMATION_INITS)
        n_classes, (_, side, _) = problem.n_classes, problem.image_shape
        n = cls.count(problem, factor=factor, decoder=decoder, labels=labels)
        if init == "noise":
            images = torch.randn((n_classes * n, *problem.image_shape), generator=generator)
            images = (images / 4 + 0.5).clamp_(0, 1)
        else:
            images = _mixed(problem, n, factor if init == "mix" else 1, generator)
        learnable = decoder == "learnable"
        kernel = bilinear(tile_side(side, factor), side, images).contiguous() if learnable else None
        logits = first_logits(labels, n_classes, formed(decoder, n, factor))
        learned = {"kernel": kernel, "label_logits": logits}
        stored = cls(images, n_classes, factor, decoder, problem.preprocess, **learned)
        return stored.to(problem.device)

    def config(self) -> dict[str, Any]:
        """The number of classes, the factor and the decoder."""
        return {"n_classes": self.n_classes, "factor": self.factor, "decoder": self.decoder}

    @torch.no_grad()
    def clamp(self) -> None:
        """Clamp the stored pixels to [0, 1], in place."""
        self.images.clamp_(0, 1)

    def _images(self, items: Tensor | None) -> Tensor:
        stored = self.images.unflatten(0, (self.n_classes, -1))
        scales = spans(self.decoder, stored.shape[1], self.factor)
        if len(scales) == 1:  # decode the chosen tiles only
            tiles = cut(stored, scales[0][0]).flatten(0, 1)
            return self.preprocess(self._enlarge(tiles if items is None else tiles[items]))
        parts = [self._enlarge(cut(stored[:, first:end], k)) for k, first, end in scales]
        images = torch.cat(parts, 1).flatten(0, 1)
        return self.preprocess(images if items is None else images[items])

    def _enlarge(self, tiles: Tensor) -> Tensor:
        """Up-sample tiles [...,C,s,s] -> images [...,C,H,H]."""
        full, side = self.images.shape[-1], tiles.shape[-1]
        if self.kernel is not None:
            return resample(tiles, self.kernel)
        return tiles if side == full else resample(tiles, bilinear(side, full, tiles))


def _check(decoder: str, n: int, factor: int, side: int) -> None:
    """Check n stored images per class of `side` pixels. Raises UserError if they cannot be decoded."""
    if decoder == "bounded" and n > CAP:
        raise UserError(f"the bounded decoder takes at most {CAP} images per class, not {n}: lower ipc")
    for scale, _, _ in spans(decoder, n, factor):
        tile_side(side, scale)


def spans(decoder: str, n: int, factor: int) -> list[tuple[int, int, int]]:
    """Which of a class's stored images are decoded at which scale.

    Args:
        decoder: "uniform", "multi_scale", "bounded" or "learnable".
        n: stored images of the class.
        factor: the largest scale.

    Returns:
        (scale, first, end) of each range of stored images, in the order in which they are decoded.
    """
    if decoder == "multi_scale":
        return [(k, 0, n) for k in range(1, factor + 1)]
    if decoder != "bounded":
        return [(factor, 0, n)]
    found, first, used = [], 0, 0
    for k in range(factor, 0, -1):  # reserve at least one decoded image for each of the rest
        left = n - first
        count = left if k == 1 else max(0, min((CAP - used - left) // (k * k), left))
        if count:
            found.append((k, first, first + count))
        first, used = first + count, used + count * k * k
    return found


def formed(decoder: str, n: int, factor: int) -> int:
    """How many images per class n stored ones decode to."""
    return sum((end - first) * k * k for k, first, end in spans(decoder, n, factor))


def tile_side(side: int, factor: int) -> int:
    """The side of a tile, ceil(side / factor). Raises UserError if a row of tiles would be padding only."""
    tile = -(-side // factor) if factor >= 1 else 0
    if tile == 0 or (factor - 1) * tile >= side:
        raise UserError(
            f"factor {factor} cuts no {side} x {side} image into {factor} x {factor} tiles: lower it"
        )
    return tile


def cut(images: Tensor, factor: int) -> Tensor:
    """Cut images [K,n,C,H,H] into tiles [K,f*f*n,C,s,s], tile-major; padded with grey where needed."""
    tile = -(-images.shape[-1] // factor)
    missing = tile * factor - images.shape[-1]
    padded = F.pad(images, (0, missing, 0, missing), value=GREY_LEVEL)
    grid = padded.unflatten(-1, (factor, tile)).unflatten(-3, (factor, tile))  # K,n,C,i,s,j,s
    return grid.permute(0, 3, 5, 1, 2, 4, 6).flatten(1, 3)


def paste(tiles: Tensor, factor: int, side: int) -> Tensor:
    """The inverse of `cut`: tiles [K,f*f*n,C,s,s] -> images [K,n,C,side,side], without the padding."""
    grid = tiles.unflatten(1, (factor, factor, -1)).permute(0, 3, 4, 1, 5, 2, 6)  # K,n,C,i,s,j,s
    return grid.flatten(5, 6).flatten(3, 4)[..., :side, :side]


def _mixed(problem: Problem, n: int, factor: int, generator: torch.Generator) -> Tensor:
    """Images [n_classes * n,C,H,H] in [0, 1] whose tiles are real images of their class, shrunk.

    Tile q of stored image m is the (q * n + m)-th real image drawn from the class.
    """
    _, side, _ = problem.image_shape
    real = problem.images[random_members(problem, n * factor**2, generator)].float().div_(255)
    tiles = shrink(real, tile_side(side, factor)).unflatten(0, (problem.n_classes, -1))
    return paste(tiles, factor, side).flatten(0, 1).contiguous()
