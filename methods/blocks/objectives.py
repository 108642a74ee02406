"""What is matched. An objective takes networks and batches and never asks what produced the batch."""

from typing import Literal

import torch
from torch import Tensor, nn

from bench.core import timing
from methods.blocks.class_gradients import Matched, per_class_gradients

Distance = Literal["squared", "l1", "cosine"]
EPS = 1e-6  # the least product of norms that a cosine divides by


@timing.charged("synthetic gradient")
def distribution_matching(real: Tensor, synthetic: Tensor, n_classes: int) -> Tensor:
    """Squared distance of the mean embeddings, summed over classes (Zhao & Bilen, WACV 2023, eq. 4).

    Both are class-major: real [K*B,D] and synthetic [K*n,D].
    """
    gap = real.unflatten(0, (n_classes, -1)).mean(1) - synthetic.unflatten(0, (n_classes, -1)).mean(1)
    return gap.square().sum()


@timing.charged("synthetic gradient")
def gradient_matching(
    net: nn.Module,
    real: Tensor,
    real_targets: Tensor,
    synthetic: Tensor,
    synthetic_targets: Tensor,
    n_classes: int,
    *,
    distance: Distance = "squared",
    matched: Matched = "kernels",
) -> Tensor:
    """Distance of the gradients of each class's mean cross-entropy, summed over classes and parameters.

    Zhao et al., ICLR 2021, eq. 7 (`cosine`, `weights`); Kim et al., ICML 2022, section 3 (`squared` or `l1`,
    `kernels`). Both batches are class-major: real [K*B,C,H,W] and synthetic [K*n,C,H,W], with targets as
    indices or probabilities. Differentiable in the synthetic images and targets; the network is left as it
    is. Raises UserError for a network whose gradients cannot be told apart by class, as with batch norm.
    """
    with timing.part("real gradient"):
        target = per_class_gradients(net, real, real_targets, n_classes, matched, create_graph=False)
    found = per_class_gradients(net, synthetic, synthetic_targets, n_classes, matched, create_graph=True)
    pairs = zip(found, target, strict=True)
    return torch.stack([gradient_distance(ours, theirs, distance) for ours, theirs in pairs]).sum()


def gradient_distance(ours: Tensor, theirs: Tensor, distance: Distance) -> Tensor:
    """Of the gradients [K,*shape] of one parameter, summed over classes.

    `squared` and `l1` sum over all entries; `cosine` sums 1 - cos over output units (the first axis of the
    shape), or takes a vector whole. A unit without a gradient has the distance 1, and the slopes stay finite.
    """
    if distance == "squared":
        return (ours - theirs).square().sum()
    if distance == "l1":
        return (ours - theirs).abs().sum()
    start = 2 if ours.dim() > 2 else 1
    a, b = ours.flatten(start), theirs.flatten(start)
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return (1 - (a * b).sum(-1) / norms.clamp_min(EPS)).sum()


def trajectory_distance(end: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """|end - target|^2 / |start - target|^2 of weight vectors [P] (Cazenavette et al., CVPR 2022, eq. 2).

    1 for a student that has not moved, 0 for one that has arrived.
    """
    return (end - target).square().sum() / (start - target).square().sum()
