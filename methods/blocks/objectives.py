"""What is matched. An objective takes networks and batches, however the batches were produced."""

from typing import Literal

import torch
from torch import Tensor, nn

from bench.core import timing
from methods.blocks.class_gradients import Matched, per_class_gradients

Distance = Literal["squared", "l1", "cosine"]
EPS = 1e-6  # lower bound of the product of norms in a cosine


@timing.charged("synthetic gradient")
def distribution_matching(real: Tensor, synthetic: Tensor, n_classes: int) -> Tensor:
    """Squared distance of the mean embeddings of real and synthetic images, summed over classes.

    Args:
        real: embeddings [K*B,D], class after class.
        synthetic: embeddings [K*n,D], class after class.
        n_classes: K.

    Returns:
        The loss, 0-dim.

    References:
        Zhao & Bilen, WACV 2023, eq. 4.
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

    It is differentiable in the synthetic images and targets; the network is not changed.

    Args:
        net: the network.
        real: real images [K*B,C,H,W], class after class.
        real_targets: classes int64 [K*B], or probabilities [K*B,K].
        synthetic: synthetic images [K*n,C,H,W], class after class.
        synthetic_targets: classes int64 [K*n], or probabilities [K*n,K].
        n_classes: K.
        distance: "squared", "l1" or "cosine", see `gradient_distance`.
        matched: which parameters, see `matched_parameters`.

    Returns:
        The loss, 0-dim.

    Raises:
        UserError: a class has no gradient of its own in this network, for example with batch norm.

    References:
        Zhao, Mopuri & Bilen, ICLR 2021, eq. 7 ("cosine", "weights"); Kim et al., ICML 2022, section 3
        ("squared" or "l1", "kernels").
    """
    with timing.part("real gradient"):
        target = per_class_gradients(net, real, real_targets, n_classes, matched, create_graph=False)
    found = per_class_gradients(net, synthetic, synthetic_targets, n_classes, matched, create_graph=True)
    pairs = zip(found, target, strict=True)
    return torch.stack([gradient_distance(ours, theirs, distance) for ours, theirs in pairs]).sum()


def gradient_distance(ours: Tensor, theirs: Tensor, distance: Distance) -> Tensor:
    """Distance between the gradients of one parameter, summed over classes.

    A unit whose gradient is 0 has the cosine distance 1, and its derivative is finite.

    Args:
        ours: gradients [K,*shape].
        theirs: gradients [K,*shape].
        distance: "squared" and "l1" sum over all entries; "cosine" sums 1 - cos over output units (the first
            axis of the shape), or takes 1 - cos of the whole gradient if it is a vector.

    Returns:
        The distance, 0-dim.
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
    """|end - target|^2 / |start - target|^2: 1 for a student that has not moved, 0 at the target.

    Args:
        end: the student's weights after its steps [P].
        start: the student's and the expert's weights before them [P].
        target: the expert's later weights [P].

    Returns:
        The loss, 0-dim.

    References:
        Cazenavette et al., CVPR 2022, eq. 2.
    """
    return (end - target).square().sum() / (start - target).square().sum()
