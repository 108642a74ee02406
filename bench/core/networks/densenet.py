"""DenseNet-BC for small images (Huang et al., CVPR 2017), as IDC uses it."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.core.networks.base import Network, Shape, need_side
from bench.core.networks.layers import check_norm, least_side, make_norm

DENSE_BLOCKS = (6, 12, 24, 16)  # layers of each dense block: those of DenseNet-121


def _conv(channels: int, width: int, kernel: int, side: int, norm: str) -> list[nn.Module]:
    """A norm, a ReLU and a convolution."""
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return [make_norm(norm, channels, side), nn.ReLU(), conv]


class DenseLayer(nn.Module):
    """[N,C,H,W] -> [N,C+width,H,W]: the input, and `width` new maps from a 1x1 and a 3x3 convolution."""

    def __init__(self, channels: int, width: int, side: int, norm: str) -> None:
        super().__init__()
        bottleneck = _conv(channels, 4 * width, 1, side, norm)
        self.new = nn.Sequential(*bottleneck, *_conv(4 * width, width, 3, side, norm))

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C+width,H,W]."""
        return torch.cat([x, self.new(x)], 1)


class DenseNet(Network):
    """IDC's DenseNet: the blocks of DenseNet-121 at growth rate `width`, batch norm; 1.00 M parameters.

    Between the blocks, 1x1 convolutions halve the number of maps and 2x2 average poolings halve their side.

    References:
        Huang et al., CVPR 2017; Kim et al. (IDC), ICML 2022.
    """

    def __init__(self, image_shape: Shape, n_classes: int, *, width: int = 12, norm: str = "batch") -> None:
        super().__init__()
        channels, side, _ = image_shape
        layers: list[nn.Module] = [nn.Conv2d(channels, 2 * width, 3, padding=1, bias=False)]
        channels = 2 * width
        for i, depth in enumerate(DENSE_BLOCKS):
            if i:
                layers += [*_conv(channels, channels // 2, 1, side, norm), nn.AvgPool2d(2)]
                channels, side = channels // 2, side // 2
            layers += [DenseLayer(channels + j * width, width, side, norm) for j in range(depth)]
            channels += depth * width
        layers += [make_norm(norm, channels, side), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, n_classes)

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError if the images are too small, or the width does not fit the norm."""
        check_norm(params["norm"], params["width"])
        need_side(8 * least_side(params["norm"]), image_shape[1], f" with {params['norm']} norm")

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """As in `Network`."""
        return {"blocks": DENSE_BLOCKS}
