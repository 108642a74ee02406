"""Plain stacks of convolutions: the field's ConvNet, and its small AlexNet and VGG11."""

from typing import Any

from torch import nn

from bench.core.errors import UserError
from bench.core.networks.base import Network, Shape, need_side
from bench.core.networks.layers import NO_POOLING, check_norm, padded, stack


class ConvNet(Network):
    """`depth` blocks of [3x3 conv `width`, norm, ReLU, 2x2 average pool] and a linear classifier.

    The standard is ConvNet-3 of width 128 with instance norm: 320,010 parameters at 32x32x3 with 10 classes.
    The first convolution pads 28-pixel images to 32, as in the field's code.

    Args:
        image_shape: (C, H, W).
        n_classes: number of outputs.
        depth: number of blocks; each halves the side of the maps, unless they are unpooled.
        width: number of maps of each convolution.
        norm: "instance", "batch", "group", "layer" or "none".
        activation: "relu", "leaky_relu", "sigmoid", "gelu" or "silu".
        pooling: "avg", "max" or "unpooled".

    References:
        Gidaris & Komodakis, CVPR 2018; Zhao et al., ICLR 2021.
    """

    def __init__(
        self,
        image_shape: Shape,
        n_classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        norm: str = "instance",
        activation: str = "relu",
        pooling: str = "avg",
    ) -> None:
        super().__init__()
        convs = [(3, width, pooling != NO_POOLING)] * depth
        self.features, size = stack(image_shape, convs, norm, activation, pooling)
        self.classifier = nn.Linear(size, n_classes)

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError if the images are too small for the depth, or the width does not fit the norm."""
        side, depth = image_shape[1], params["depth"]
        deepest = padded(side).bit_length() - 1
        if depth > deepest and params["pooling"] != NO_POOLING:
            raise UserError(
                f"of depth {depth} is too deep for {side}-pixel images: each block halves them; "
                f"use a depth of 1 to {deepest}"
            )
        check_norm(params["norm"], params["width"])


# (kernel, width, pooled?) of each convolution
ALEXNET = ((5, 128, True), (5, 192, True), (3, 256, False), (3, 192, False), (3, 192, True))
_WIDTHS = ((64, True), (128, True), (256, False), (256, True), *((512, False), (512, True)) * 2)
VGG = tuple((3, width, pooled) for width, pooled in _WIDTHS)


class AlexNet(Network):
    """Five convolutions and three average poolings, with instance norm as in RTP, or none: `alexnet-none`.

    1,874,122 parameters at 32x32x3 with 10 classes.
    """

    def __init__(self, image_shape: Shape, n_classes: int, *, norm: str = "instance") -> None:
        super().__init__()
        self.features, size = stack(image_shape, ALEXNET, norm, "relu", "avg")
        self.classifier = nn.Linear(size, n_classes)

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError for images of less than 8 pixels."""
        need_side(8, image_shape[1])

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """As in `Network`."""
        return {"convolutions": ALEXNET}


class VGG11(Network):
    """VGG's configuration A for small images: eight convolutions with norms, and one linear layer.

    It has 512 features at 28 and 32 pixels, and four times as many at 64.

    References:
        Simonyan & Zisserman, ICLR 2015.
    """

    def __init__(self, image_shape: Shape, n_classes: int, *, norm: str = "instance") -> None:
        super().__init__()
        self.features, size = stack(image_shape, VGG, norm, "relu", "max")
        self.classifier = nn.Linear(size, n_classes)

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError for images of less than 32 pixels after padding."""
        need_side(32, padded(image_shape[1]))

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """As in `Network`."""
        return {"convolutions": VGG}
