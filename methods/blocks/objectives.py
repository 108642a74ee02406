"""What is matched. An objective takes networks and batches, however the batches were produced."""

from typing import Any, Literal

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


@timing.charged("synthetic gradient")
def batch_norm_statistics(
    net: nn.Module, images: Tensor, batches: int, first: float = 10.0
) -> tuple[Tensor, Tensor]:
    """Distance of the statistics of each batch, before every batch norm, to those that the network keeps.

    A layer's distance is |var - running var| + |mean - running mean|, of vectors over its channels, with the
    variance divided by the number of values. The network must be in evaluation mode, so that the images of a
    batch do not change each other's features, and several batches can go through it together.

    Args:
        net: the network, with batch norms.
        images: [batches*B,C,H,W], batch after batch.
        batches: how many.
        first: weight of the first layer; the others have 1.

    Returns:
        The logits [batches*B,K], and the distance of each batch, summed over layers, [batches].

    References:
        Yin et al., DeepInversion, CVPR 2020, eq. 4; Yin et al., SRe2L, NeurIPS 2023, eq. 8.
    """
    distances: list[Tensor] = []

    def read(layer: Any, given: tuple[Tensor, ...]) -> None:
        x = given[0].to(layer.running_mean).unflatten(0, (batches, -1))
        x = x.transpose(1, 2).flatten(2)  # batches,channels,values
        var, mean = torch.var_mean(x, 2, correction=0)
        gaps = torch.stack([layer.running_var - var, layer.running_mean - mean])
        distances.append(torch.linalg.vector_norm(gaps, dim=2).sum(0))

    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [layer.register_forward_pre_hook(read) for layer in norms]
    try:
        logits = net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, first * distances[0] + torch.stack(distances).sum(0) - distances[0]
