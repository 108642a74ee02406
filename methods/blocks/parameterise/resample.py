"""Bilinear up-sampling as two small matrix products, whose gradient is the same on every run.

(On a GPU, the gradient of torch's own bilinear up-sampling sums in no fixed order.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear(length: int, to: int, like: Tensor) -> Tensor:
    """The matrix [to,length] that interpolates `length` values linearly at `to` points.

    Pixel centres are at halves. The matrix has the device and dtype of `like`.
    """
    unit = torch.eye(length, dtype=like.dtype, device=like.device)
    return F.interpolate(unit[None], size=to, mode="linear", align_corners=False)[0].T


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply a matrix [h,s] to both rows and columns: [...,s,s] -> [...,h,h]."""
    return matrix @ images @ matrix.T


def shrink(images: Tensor, side: int) -> Tensor:
    """Shrink images [n,C,H,W] -> [n,C,side,side]; a new pixel is the mean over its area."""
    return F.interpolate(images, size=(side, side), mode="area")
