"""Images that go through a network some at a time: how many, and fewer where they do not fit the memory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.core.transfer import device_kind

ON_CPU = 50
MOST = 2000
MAPS = 128  # of the field's ConvNet, the widest of its layers at the images' own size
PIECE_BYTES = MOST * MAPS * 32 * 32 * 4  # one activation of so many CIFAR images: 1.05 GB


def piece_size(device: torch.device, shape: Sequence[int] = ()) -> int:
    """How many images to put through a network at a time.

    On a CPU, the activations of 50 images stay in the cache: this was measured to be 2 to 3 times faster than
    1000 at a time. A GPU needs larger batches to be busy, of as many as an activation of ConvNet-3 takes
    PIECE_BYTES for: 2000 images of up to 32 pixels, 125 of 128.

    Args:
        device: where they are.
        shape: of the images, (..., H, W); without it they are taken for small ones.
    """
    if device_kind(device) == "cpu":
        return ON_CPU
    height, width = shape[-2:] if len(shape) > 2 else (1, 1)
    return max(1, min(MOST, PIECE_BYTES // (MAPS * height * width * 4)))


class Halving:
    """A function of images, called on fewer at a time where the memory does not suffice.

    Args:
        function: images [n,...] -> a tensor, which does not couple the images.
        dim: the axis of the images in what it returns.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], dim: int = 0) -> None:
        self._function, self._dim = function, dim
        self._most: int | None = None  # images at a time, once too many were tried

    def __call__(self, images: Tensor) -> Tensor:
        """What the function says of all images.

        Raises:
            torch.OutOfMemoryError: a single one does not fit.
        """
        parts, first = list[Tensor](), 0
        while first < len(images) or not parts:
            size = min(self._most or len(images), len(images) - first)
            try:
                parts.append(self._function(images[first : first + size]))
            except torch.OutOfMemoryError:
                if size <= 1:
                    raise
                self._most = -(-size // 2)  # the next turn begins when the failed one has let its tensors go
                continue
            first += size
        return parts[0] if len(parts) == 1 else torch.cat(parts, self._dim)
