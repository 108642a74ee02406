"""Shared parts of the convolutional networks: norms, activations, poolings and stacks of convolutions."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from bench.core.errors import UserError
from bench.core.networks.base import Shape
from bench.core.networks.second_order import AvgPool2d, Conv2d, InstanceNorm, ReLU

NORMS = ("instance", "batch", "group", "layer", "none")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "avg": AvgPool2d,
    "max": partial(nn.MaxPool2d, 2),
}
NO_POOLING = "unpooled"  # not "none", which is a norm: each word of a name belongs to one parameter
GROUPS = 4  # of the group norm


def make_norm(kind: str, width: int, side: int) -> nn.Module:
    """The norm `kind` for maps [N,width,side,side], with its affine parameters; identity for "none"."""
    if kind == "instance":
        return InstanceNorm(width)
    if kind == "batch":
        return nn.BatchNorm2d(width)
    if kind == "group":
        return nn.GroupNorm(GROUPS, width)
    if kind == "layer":
        return nn.LayerNorm([width, side, side])
    return nn.Identity()


def check_norm(kind: str, *widths: int) -> None:
    """Check that maps of these widths can have the norm. Raises UserError if they cannot."""
    for width in widths:
        if kind == "group" and width % GROUPS:
            raise UserError(f"has a group norm of {GROUPS} groups, so width {width} must divide by {GROUPS}")


def least_side(kind: str) -> int:
    """The smallest side of the maps that a norm can take: an instance norm turns a single pixel into zero."""
    return 2 if kind == "instance" else 1


def padded(side: int) -> int:
    """The side after padding: as in the field's code, 28-pixel images are padded to 32."""
    return 32 if side == 28 else side


def stack(
    image_shape: Shape, convs: Sequence[tuple[int, int, bool]], norm: str, activation: str, pooling: str
) -> tuple[nn.Sequential, int]:
    """A plain stack of convolutions of stride 1, each followed by a norm and an activation.

    Args:
        image_shape: (C, H, W).
        convs: kernel, width and whether a pooling follows, for each convolution. Convolutions keep the side
            of the maps, and poolings halve it.
        norm: one of NORMS.
        activation: one of ACTIVATIONS.
        pooling: one of POOLINGS; not used where no convolution is pooled.

    Returns:
        The layers, which map [N,C,H,W] -> [N,D], and D.
    """
    channels, side, _ = image_shape
    margin, side = (padded(side) - side) // 2, padded(side)
    layers: list[nn.Module] = []
    for kernel, width, pooled in convs:
        layers += [Conv2d(channels, width, kernel, padding=kernel // 2 + margin)]
        layers += [make_norm(norm, width, side), ACTIVATIONS[activation]()]
        if pooled:
            layers += [POOLINGS[pooling]()]
            side //= 2
        channels, margin = width, 0
    return nn.Sequential(*layers, nn.Flatten()), channels * side**2
