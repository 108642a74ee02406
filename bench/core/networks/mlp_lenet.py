"""The field's two smallest networks: MLP and LeNet."""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.networks.base import Network, Shape, need_side
from bench.core.precision import in_precision


class MLP(Network):
    """Two hidden ReLU layers on the flattened image, of width 128 as in the field's `MLP`."""

    def __init__(self, image_shape: Shape, n_classes: int, *, width: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(image_shape), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(width, n_classes)

    @in_precision
    def embed(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> the second hidden layer [N,width]."""
        return self.hidden(x)


class LeNet(Network):
    """LeNet-5 with ReLU and max pooling; 28-pixel images are padded to 32 as in LeCun et al. (1998)."""

    def __init__(self, image_shape: Shape, n_classes: int) -> None:
        super().__init__()
        channels, side, _ = image_shape
        pad = 2 if side == 28 else 0
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=pad)
        self.conv2 = nn.Conv2d(6, 16, 5)
        grid = ((side + 2 * pad - 4) // 2 - 4) // 2
        self.fc1 = nn.Linear(16 * grid**2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.classifier = nn.Linear(84, n_classes)

    @classmethod
    def check(cls, image_shape: Shape, **params: Any) -> None:
        """Raises UserError for images of less than 16 pixels."""
        need_side(16, image_shape[1])

    @in_precision
    def embed(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> the last hidden layer [N,84]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
