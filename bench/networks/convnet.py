"""The field's ConvNet (Gidaris & Komodakis, CVPR 2018; Zhao et al., ICLR 2021)."""

from torch import Tensor, nn

from bench.errors import UserError
from bench.networks.small import Network, Shape

NORMS = ("instance", "batch", "group", "layer", "none")


def _norm(kind: str, width: int, side: int) -> nn.Module:
    if kind == "instance":  # affine, as a group norm with one channel a group: vmap can hold it
        return nn.GroupNorm(width, width)
    if kind == "batch":
        return nn.BatchNorm2d(width)
    if kind == "group":
        return nn.GroupNorm(4, width)
    if kind == "layer":
        return nn.LayerNorm([width, side, side])
    return nn.Identity()


class ConvNet(Network):
    """`depth` blocks of [3x3 conv `width`, norm, ReLU, 2x2 average pool] and a linear classifier.

    ConvNet-3 of width 128 with instance norm is the standard: 320,010 parameters at 32x32x3 with 10 classes.
    28-pixel images are padded to 32 by the first convolution, as in the field's code.
    """

    def __init__(
        self, image_shape: Shape, n_classes: int, *, depth: int = 3, width: int = 128, norm: str = "instance"
    ) -> None:
        super().__init__()
        channels, side, _ = image_shape
        blocks: list[nn.Module] = []
        for i in range(depth):
            padding = 3 if i == 0 and side == 28 else 1
            side += 2 * (padding - 1)
            blocks += [nn.Conv2d(channels if i == 0 else width, width, 3, padding=padding)]
            blocks += [_norm(norm, width, side), nn.ReLU(), nn.AvgPool2d(2)]
            side //= 2
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * side * side, n_classes)

    @classmethod
    def check(cls, image_shape: Shape, depth: int = 3, width: int = 128, norm: str = "instance") -> None:
        side = 32 if image_shape[1] == 28 else image_shape[1]
        deepest = side.bit_length() - 1
        if depth > deepest:
            raise UserError(
                f"architecture convnet of depth {depth} is too deep for {image_shape[1]}-pixel images: "
                f"each block halves them; use a depth of 1 to {deepest}"
            )
        if norm == "group" and width % 4:
            raise UserError(
                f"architecture convnet: group norm takes 4 groups, so width {width} must divide by 4"
            )

    def embed(self, x: Tensor) -> Tensor:
        return self.features(x).flatten(1)
