"""Residual networks of 3x3 blocks for small images (He et al., CVPR 2016), in the variants that papers use.

They differ in the stem, in how a stage halves its maps, in the norm, and in the head: `resnet10` (IDC),
`resnet12` (RTP), `resnet18` (MTT, HaBa), `resnet_ap10` (IDC).
"""

import itertools
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from bench.core.networks.base import Network, Shape, need_side
from bench.core.networks.layers import check_norm, least_side, make_norm

# how a block halves its maps: convolutions of stride 2, or 2x2 average pooling after one of its convolutions
Halving = Literal["stride", "pool_first", "pool_second"]


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + two 3x3 convolutions of x).

    Args:
        channels: number of maps before the block.
        width: number of maps after it.
        side: of the maps before it.
        after: side of the maps after it.
        norm: one of `layers.NORMS`.
        halving: how the side is halved; None if it is not.
    """

    def __init__(
        self, channels: int, width: int, side: int, after: int, norm: str, halving: Halving | None
    ) -> None:
        super().__init__()
        stride = 2 if halving == "stride" else 1
        middle = after if halving == "stride" else side
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            make_norm(norm, width, middle),
            nn.ReLU(),
            nn.AvgPool2d(2) if halving == "pool_first" else nn.Identity(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.AvgPool2d(2) if halving == "pool_second" else nn.Identity(),
            make_norm(norm, width, after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False),
                nn.AvgPool2d(2) if halving in ("pool_first", "pool_second") else nn.Identity(),
                make_norm(norm, width, after),
            )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,side,side] -> [N,width,after,after]."""
        return self.activation(self.shortcut(x) + self.residual(x))


class ResNet(Network):
    """A stem of `width` maps and four stages of 1, 2, 4, 8 times as many; the last three halve the side."""

    blocks: ClassVar[int] = 1  # per stage
    halving: ClassVar[Halving] = "stride"
    stem: ClassVar[tuple[int, int]] = (3, 1)  # side of its kernel, and of the average pooling after it
    averaged: ClassVar[bool] = True  # the classifier reads the mean of each last map, or all of its pixels

    def __init__(self, image_shape: Shape, n_classes: int, width: int, norm: str) -> None:
        super().__init__()
        (channels, side, _), (kernel, pool) = image_shape, self.stem
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
            make_norm(norm, width, side),
            nn.ReLU(),
            nn.AvgPool2d(pool) if pool > 1 else nn.Identity(),
        ]
        sides, channels = self._sides(side), width
        for stage, wide in enumerate(width * 2**i for i in range(4)):
            for i in range(self.blocks):
                first = i == 0 and stage > 0
                before, halving = (sides[stage - 1], self.halving) if first else (sides[stage], None)
                layers.append(ResidualBlock(channels, wide, before, sides[stage], norm, halving))
                channels = wide
        head = [nn.AdaptiveAvgPool2d(1)] if self.averaged else []
        self.features = nn.Sequential(*layers, *head, nn.Flatten())
        self.classifier = nn.Linear(channels * (1 if self.averaged else sides[-1] ** 2), n_classes)

    @classmethod
    def _sides(cls, side: int) -> list[int]:
        """The side of each stage's maps; a stride of 2 rounds up, and pooling rounds down."""
        up = 1 if cls.halving == "stride" else 0
        return list(itertools.accumulate(range(3), lambda s, _: (s + up) // 2, initial=side // cls.stem[1]))

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError if the images are too small, or the width does not fit the norm."""
        check_norm(params["norm"], params["width"])
        last = least_side(params["norm"])
        least = next(side for side in itertools.count(1) if cls._sides(side)[-1] >= last)
        need_side(least, image_shape[1], f" with {params['norm']} norm")

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """As in `Network`."""
        return {name: getattr(cls, name) for name in ("blocks", "halving", "stem", "averaged")}


class ResNet10(ResNet):
    """IDC's ResNet-10: one block per stage, batch norm (CIFAR-10: width 32; SVHN: `resnet10-w64`)."""

    def __init__(self, image_shape: Shape, n_classes: int, *, width: int = 32, norm: str = "batch") -> None:
        super().__init__(image_shape, n_classes, width, norm)


class ResNet12(ResNet):
    """RTP's ResNet12: one block per stage, pooling instead of strides, no average over the last maps.

    The pooling comes before the norm, both in the block and in the shortcut. 4,980,042 parameters at 32x32x3
    with 10 classes.
    """

    halving = "pool_second"
    averaged = False

    def __init__(
        self, image_shape: Shape, n_classes: int, *, width: int = 64, norm: str = "instance"
    ) -> None:
        super().__init__(image_shape, n_classes, width, norm)


class ResNet18(ResNet):
    """ResNet-18 with the CIFAR stem (3x3, no pooling), instance norm by default (`resnet18-batch`)."""

    blocks = 2

    def __init__(
        self, image_shape: Shape, n_classes: int, *, width: int = 64, norm: str = "instance"
    ) -> None:
        super().__init__(image_shape, n_classes, width, norm)


class ResNetAP10(ResNet):
    """IDC's ResNetAP-10 for ImageNet: a 7x7 stem, pooling instead of strides, He initialisation."""

    halving = "pool_first"
    stem = (7, 4)

    def __init__(
        self, image_shape: Shape, n_classes: int, *, width: int = 64, norm: str = "instance"
    ) -> None:
        super().__init__(image_shape, n_classes, width, norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
