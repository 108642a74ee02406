"""Up-sampling as two small matrix products: linear, and with a gradient that is the same on every run.

(The gradient of torch's own bilinear up-sampling adds in no fixed order on a GPU.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear(length: int, to: int, like: Tensor) -> Tensor:
    """[to,length]: linear interpolation of `length` values at `to` points, pixel centres at halves."""
    unit = torch.eye(length, dtype=like.dtype, device=like.device)
    return F.interpolate(unit[None], size=to, mode="linear", align_corners=False)[0].T


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """[...,s,s] with matrix [h,s] -> [...,h,h]: the same for rows and columns."""
    return matrix @ images @ matrix.T


def shrink(images: Tensor, side: int) -> Tensor:
    """[n,C,H,W] -> [n,C,side,side]: the mean over each pixel's area."""
    return F.interpolate(images, size=(side, side), mode="area")
