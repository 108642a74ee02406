"""The augmentations with which DC's authors train students (Zhao et al., ICLR 2021; utils.py of their code).

As everywhere here, each takes images [n,C,H,W] and uniforms [n,3], and fills with zero, the data set's mean;
theirs fills crops and rotations with the mean of the batch. Their rotation reads by cubic splines, ours
bilinearly.
"""

import torch
from torch import Tensor

from bench.core.augment.geometry import shift, turn
from bench.core.transfer import to_device

PIXELS, FACTOR, DEGREES, DEVIATION = 4, 0.2, 45, 0.001


def dc_crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift each axis by -4 to 3 pixels."""
    return shift(x, _whole(u[:, :2], 2 * PIXELS), PIXELS)


def dc_scale(x: Tensor, u: Tensor) -> Tensor:
    """Resize each axis to 0.8 to 1.2 of the height, by the nearest pixel, and keep the middle."""
    h, w = x.shape[2:]
    size = ((1 - FACTOR + 2 * FACTOR * u[:, :2]) * h).long()
    frame = size.amax(1).clamp_min(max(h, w))  # in which the resized image stands, and is cut out of
    rows, inside_rows = _nearest(h, size[:, 0], frame)
    cols, inside_cols = _nearest(w, size[:, 1], frame)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    resized = x.permute(0, 2, 3, 1)[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    return resized * (inside_rows[:, :, None] & inside_cols[:, None, :])[:, None]


def _nearest(length: int, size: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixel of an axis each pixel of the result shows [n,length], and whether it shows any."""
    first = (frame - length) // 2 - (frame - size) // 2
    at = first[:, None] + torch.arange(length, device=size.device)
    inside = (at >= 0) & (at < size[:, None])
    return (at * length // size[:, None]).clamp(0, length - 1), inside


def dc_rotate(x: Tensor, u: Tensor) -> Tensor:
    """Rotate by a whole number of degrees, -45 to 44."""
    return turn(x, (_whole(u[:, 0], 2 * DEGREES) - DEGREES).to(x))


def dc_noise(x: Tensor, u: Tensor) -> Tensor:
    """Add normal noise of deviation 0.001; the uniform seeds it, so that a draw can be applied again.

    The uniforms are on the host, where the noise is drawn.
    """
    seeds = (u[:, 0].double() * 2**24).long().tolist()
    noise = [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return x + DEVIATION * to_device(torch.stack(noise), x.device).to(x.dtype)


def _whole(u: Tensor, n: int) -> Tensor:
    """Uniforms in [0, 1) -> whole numbers 0 to n - 1."""
    return (u * n).long().clamp(max=n - 1)


NOISE = "dc-noise"
DC_OPERATIONS = {"dc-crop": dc_crop, "dc-scale": dc_scale, "dc-rotate": dc_rotate, NOISE: dc_noise}
DC_CONSTANTS = dict(zip(DC_OPERATIONS, (PIXELS, FACTOR, DEGREES, DEVIATION), strict=True))
