"""Differentiable siamese augmentation (DSA; Zhao & Bilen, ICML 2021), batched, with explicit draws.

A `Draw` holds one operation and its parameters for each group of images. Groups of one image are the
independent augmentation of ordinary training; one group a class, applied to the real and to the synthetic
images of that class, is the siamese augmentation of the matching methods. All images are normalised, so the
fill value 0 is the data set's mean.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.plugins import choose

CROP, CUTOUT, SCALE, ROTATE = 0.125, 0.5, 1.2, 15.0  # ratios of the side; factor; degrees
_PARAMS = 3  # the most uniforms that one operation reads


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Horizontal flip with probability 1/2."""
    return torch.where((u[:, 0] < 0.5).view(-1, 1, 1, 1), x.flip(3), x)


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness x + (u - 0.5), saturation times 2u, contrast times (u + 0.5), in this order."""
    bright, saturate, contrast = (u[:, i].view(-1, 1, 1, 1) for i in range(3))
    x = x + (bright - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturate) + grey if x.shape[1] > 1 else x
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift by a whole number of pixels in [-side/8, side/8] per axis, zero fill."""
    n, _, h, w = x.shape
    pad = int(h * CROP + 0.5)
    shift = (u[:, :2] * (2 * pad + 1)).long().clamp_(max=2 * pad)
    padded = F.pad(x, (pad,) * 4).permute(0, 2, 3, 1)
    rows = shift[:, 0, None] + torch.arange(h, device=x.device)
    cols = shift[:, 1, None] + torch.arange(w, device=x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """A zero square of half the side, its centre uniform over the image, clipped at the border."""
    _, _, h, w = x.shape
    side = int(h * CUTOUT + 0.5)

    def inside(centre: Tensor, length: int) -> Tensor:  # [n, length]
        first = (centre * (length + 1 - side % 2)).floor()[:, None] - side // 2
        at = torch.arange(length, device=x.device)
        return (at >= first) & (at < first + side)

    hole = inside(u[:, 0], h)[:, :, None] & inside(u[:, 1], w)[:, None, :]
    return x * ~hole[:, None]


def _warp(x: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def scale(x: Tensor, u: Tensor) -> Tensor:
    """Each axis by its own factor between 1/1.2 and 1.2, zero fill."""
    factor = u[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    theta = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = factor[:, 0], factor[:, 1]
    return _warp(x, theta)


def rotate(x: Tensor, u: Tensor) -> Tensor:
    """By an angle between -15 and 15 degrees, zero fill."""
    angle = torch.deg2rad((u[:, 0] - 0.5) * 2 * ROTATE)
    zero = torch.zeros_like(angle)
    rows = [
        torch.stack([angle.cos(), -angle.sin(), zero], 1),
        torch.stack([angle.sin(), angle.cos(), zero], 1),
    ]
    return _warp(x, torch.stack(rows, 1))


OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


@functools.cache
def parse(strategy: str) -> tuple[str, ...]:
    """`color_crop_flip` -> its operations, `none` -> (). Raises UserError for an unknown operation."""
    names = [] if strategy == "none" else strategy.split("_")
    return tuple(choose("augmentation", name, OPS) for name in names)


@dataclass(frozen=True)
class Draw:
    """One operation [G] and its uniforms [G, 3] for each of G groups, on the CPU."""

    ops: tuple[str, ...]
    choice: Tensor
    uniforms: Tensor


def draw(strategy: str, groups: int, generator: torch.Generator) -> Draw:
    """Pick one operation of the strategy for each group, uniformly, and its parameters (DSA, section 3.2)."""
    ops = parse(strategy)
    choice = torch.randint(max(len(ops), 1), (groups,), generator=generator)
    return Draw(ops, choice, torch.rand(groups, _PARAMS, generator=generator))


def apply(images: Tensor, drawn: Draw) -> Tensor:
    """Augment [G*B,C,H,W], the B images of a group standing together; differentiable in the images.

    The operations run one after the other, each on its own groups; which groups is known on the host, so
    nothing waits for the device.
    """
    if not drawn.ops:
        return images
    size, rest = divmod(len(images), len(drawn.choice))
    if rest:
        raise ValueError(f"{len(images)} images do not divide into {len(drawn.choice)} groups")
    choice = drawn.choice.repeat_interleave(size)
    order = choice.argsort(stable=True)
    uniforms = drawn.uniforms.repeat_interleave(size, 0)[order].to(images)
    counts = choice.bincount(minlength=len(drawn.ops)).tolist()
    sources = images[order.to(images.device)].split(counts)
    parts = [
        OPS[name](x, u)
        for name, x, u in zip(drawn.ops, sources, uniforms.split(counts), strict=True)
        if len(x)
    ]
    return torch.cat(parts)[order.argsort().to(images.device)]
