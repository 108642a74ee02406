"""Multi-formation: a stored image holds several smaller ones (IDC; Kim et al., ICML 2022, section 3.2)."""

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
)
from methods.blocks.parameterise.resample import bilinear, resample, shrink

DECODERS = ("uniform", "multi_scale", "bounded", "learnable")
FORMATION_INITS = ("mix", "real", "noise")
CAP = 128  # decoded images per class of the bounded decoder
GREY_LEVEL = 0.5  # what stands below and to the right of an image that does not divide into tiles


class MultiFormation(Balanced):
    """Raw pixels in [0, 1], cut into f x f tiles, each up-sampled to a full image of its parent's class.

    `images` is [n_classes * n,C,H,H], unclamped. Tile (i, j) of the n stored images m of a class decodes to
    its images (i * f + j) * n + m. Decoders:

    - uniform: every image at scale f. n * f^2 images per class.
    - multi_scale: every image at every scale 1..f, in this order. n * (1 + 4 + ... + f^2).
    - bounded: every image at one scale, the first ones at f, the last ones at 1; at most `CAP` per class.
    - learnable: uniform, with a learned up-sampling: `kernel` [H,s] is applied to rows and columns of a
      tile of side s = ceil(H / f) and starts as the bilinear one. Its H * s floats count, so that it takes
      the place of one image per class, and at ipc 1 it does not fit.
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
        n = len(images) // n_classes
        if decoder == "bounded" and n > CAP:
            raise UserError(f"the bounded decoder takes at most {CAP} images per class, not {n}: lower ipc")
        for scale, _, _ in spans(decoder, n, factor):
            tile_side(images.shape[-1], scale)
        super().__init__(n_classes, formed(decoder, n, factor), preprocess, **common)
        self.learn(images=images, kernel=kernel)
        self.factor, self.decoder = factor, decoder

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
        """As many stored images per class as the budget holds beside the labels and the kernel.

        `init`: "mix", every tile another random real image of the class, shrunk; "real", whole real images;
        "noise", clamp(N(0, 1) / 4 + 1/2, 0, 1). Raises UserError if no image fits, for a factor that leaves
        tiles without a pixel, or for more images than the bounded decoder takes.
        """
        choose("init", init, FORMATION_INITS)
        choose("decoder", decoder, DECODERS)
        n_classes, (_, side, _) = problem.n_classes, problem.image_shape
        tile = tile_side(side, factor)
        extra = side * tile if decoder == "learnable" else 0

        def floats(n: int) -> int:
            pixels = n_classes * n * math.prod(problem.image_shape)
            return pixels + extra + label_floats(labels, n_classes, formed(decoder, n, factor))

        n = images_within(problem, labels, floats, f" and a kernel of {extra:,} floats" if extra else "")
        if init == "noise":
            images = torch.randn((n_classes * n, *problem.image_shape), generator=generator)
            images = (images / 4 + 0.5).clamp_(0, 1)
        else:
            images = _mixed(problem, n, factor if init == "mix" else 1, generator)
        kernel = bilinear(tile, side, images).contiguous() if extra else None
        logits = first_logits(labels, n_classes, formed(decoder, n, factor))
        learned = {"kernel": kernel, "label_logits": logits}
        stored = cls(images, n_classes, factor, decoder, problem.preprocess, **learned)
        return stored.to(problem.device)

    def config(self) -> dict[str, Any]:
        return {"n_classes": self.n_classes, "factor": self.factor, "decoder": self.decoder}

    @torch.no_grad()
    def clamp(self) -> None:
        """Put the stored pixels back into [0, 1]."""
        self.images.clamp_(0, 1)

    def _images(self, items: Tensor | None) -> Tensor:
        stored = self.images.unflatten(0, (self.n_classes, -1))
        scales = spans(self.decoder, stored.shape[1], self.factor)
        if len(scales) == 1:  # the chosen tiles only
            tiles = cut(stored, scales[0][0]).flatten(0, 1)
            return self.preprocess(self._enlarge(tiles if items is None else tiles[items]))
        parts = [self._enlarge(cut(stored[:, first:end], k)) for k, first, end in scales]
        images = torch.cat(parts, 1).flatten(0, 1)
        return self.preprocess(images if items is None else images[items])

    def _enlarge(self, tiles: Tensor) -> Tensor:
        """[...,C,s,s] -> [...,C,H,H]."""
        full, side = self.images.shape[-1], tiles.shape[-1]
        if self.kernel is not None:
            return resample(tiles, self.kernel)
        return tiles if side == full else resample(tiles, bilinear(side, full, tiles))


def spans(decoder: str, n: int, factor: int) -> list[tuple[int, int, int]]:
    """(scale, first, end): the range of a class's n stored images that is decoded at a scale, in order."""
    if decoder == "multi_scale":
        return [(k, 0, n) for k in range(1, factor + 1)]
    if decoder != "bounded":
        return [(factor, 0, n)]
    found, first, used = [], 0, 0
    for k in range(factor, 0, -1):  # each image that is left needs at least one place
        left = n - first
        count = left if k == 1 else max(0, min((CAP - used - left) // (k * k), left))
        if count:
            found.append((k, first, first + count))
        first, used = first + count, used + count * k * k
    return found


def formed(decoder: str, n: int, factor: int) -> int:
    """Decoded images per class of n stored ones."""
    return sum((end - first) * k * k for k, first, end in spans(decoder, n, factor))


def tile_side(side: int, factor: int) -> int:
    """ceil(side / factor). Raises UserError where a row of tiles would be padding only."""
    tile = -(-side // factor) if factor >= 1 else 0
    if tile == 0 or (factor - 1) * tile >= side:
        raise UserError(
            f"factor {factor} cuts no {side} x {side} image into {factor} x {factor} tiles: lower it"
        )
    return tile


def cut(images: Tensor, factor: int) -> Tensor:
    """[K,n,C,H,H] -> tiles [K,f*f*n,C,s,s], tile-major, padded with grey at the bottom and on the right."""
    tile = -(-images.shape[-1] // factor)
    missing = tile * factor - images.shape[-1]
    padded = F.pad(images, (0, missing, 0, missing), value=GREY_LEVEL)
    grid = padded.unflatten(-1, (factor, tile)).unflatten(-3, (factor, tile))  # K,n,C,i,s,j,s
    return grid.permute(0, 3, 5, 1, 2, 4, 6).flatten(1, 3)


def paste(tiles: Tensor, factor: int, side: int) -> Tensor:
    """The way back: tiles [K,f*f*n,C,s,s] -> [K,n,C,side,side], cropped."""
    grid = tiles.unflatten(1, (factor, factor, -1)).permute(0, 3, 4, 1, 5, 2, 6)  # K,n,C,i,s,j,s
    return grid.flatten(5, 6).flatten(3, 4)[..., :side, :side]


def _mixed(problem: Problem, n: int, factor: int, generator: torch.Generator) -> Tensor:
    """[n_classes * n,C,H,H] in [0, 1]: tile q of image m is real image q * n + m of its class, shrunk."""
    _, side, _ = problem.image_shape
    real = problem.images[random_members(problem, n * factor**2, generator)].float().div_(255)
    tiles = shrink(real, tile_side(side, factor)).unflatten(0, (problem.n_classes, -1))
    return paste(tiles, factor, side).flatten(0, 1).contiguous()
