"""How augmentations move pixels; what comes from outside of the image is zero, the data set's mean."""

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(x: Tensor, by: Tensor, pad: int) -> Tensor:
    """Cut images out of their padded selves.

    Args:
        x: images [n,C,H,W].
        by: the first row and column of each, int64 [n,2], between 0 and 2 * pad; pad moves nothing.
        pad: zeros on each side.

    Returns:
        Images [n,C,H,W].
    """
    n, _, h, w = x.shape
    padded = F.pad(x, (pad,) * 4).permute(0, 2, 3, 1)
    rows = by[:, 0, None] + torch.arange(h, device=x.device)
    cols = by[:, 1, None] + torch.arange(w, device=x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Images [n,C,H,W] read bilinearly under affine maps [n,2,3] of the coordinates, from -1 to 1."""
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def turn(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each of the images [n,C,H,W] by its angle [n]."""
    angle = torch.deg2rad(degrees)
    zero = torch.zeros_like(angle)
    rows = [
        torch.stack([angle.cos(), -angle.sin(), zero], 1),
        torch.stack([angle.sin(), angle.cos(), zero], 1),
    ]
    return warp(x, torch.stack(rows, 1))
