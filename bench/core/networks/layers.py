"""What the convolutional networks share: norms, activations, poolings, and plain stacks of convolutions."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from bench.core.errors import UserError
from bench.core.networks.base import Shape

NORMS = ("instance", "batch", "group", "layer", "none")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "avg": partial(nn.AvgPool2d, 2),
    "max": partial(nn.MaxPool2d, 2),
}
NO_POOLING = "unpooled"  # not "none", which is a norm: each word of a name belongs to one parameter
GROUPS = 4  # of the group norm


def make_norm(kind: str, width: int, side: int) -> nn.Module:
    """A norm, with its affine part, of [N,width,side,side]."""
    if kind == "instance":  # as a group norm with one channel a group: vmap can hold it
        return nn.GroupNorm(width, width)
    if kind == "batch":
        return nn.BatchNorm2d(width)
    if kind == "group":
        return nn.GroupNorm(GROUPS, width)
    if kind == "layer":
        return nn.LayerNorm([width, side, side])
    return nn.Identity()


def check_norm(kind: str, *widths: int) -> None:
    """Raises UserError when maps of these widths cannot have the norm."""
    for width in widths:
        if kind == "group" and width % GROUPS:
            raise UserError(f"has a group norm of {GROUPS} groups, so width {width} must divide by {GROUPS}")


def least_side(kind: str) -> int:
    """The least side of the maps that a norm takes: a single pixel less its own mean is zero."""
    return 2 if kind == "instance" else 1


def padded(side: int) -> int:
    """The field's code pads 28-pixel images to 32 in the first convolution of a plain stack."""
    return 32 if side == 28 else side


def stack(
    image_shape: Shape, convs: Sequence[tuple[int, int, bool]], norm: str, activation: str, pooling: str
) -> tuple[nn.Sequential, int]:
    """Convolutions (kernel, width, pooled?) of stride 1 that keep the size, each with norm and activation.

    Those that are pooled halve it. Also returns D: the layers map [N,C,H,W] -> [N,D].
    """
    channels, side, _ = image_shape
    margin, side = (padded(side) - side) // 2, padded(side)
    layers: list[nn.Module] = []
    for kernel, width, pooled in convs:
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2 + margin)]
        layers += [make_norm(norm, width, side), ACTIVATIONS[activation]()]
        if pooled:
            layers += [POOLINGS[pooling]()]
            side //= 2
        channels, margin = width, 0
    return nn.Sequential(*layers, nn.Flatten()), channels * side**2
