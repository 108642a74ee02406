"""What students learn by: cross-entropy, squared error, and distillation from a teacher."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LossKind = Literal["cross_entropy", "squared_error"]


def centred(probabilities: Tensor) -> Tensor:
    """Probabilities [...,K] as values that a regression learns: (p - 1/K) / sqrt(K/10).

    References:
        Zhou, Nezhadarya & Ba, FRePo, NeurIPS 2022; the authors' code has the scale.
    """
    n_classes = probabilities.shape[-1]
    return (probabilities - 1 / n_classes) / (n_classes / 10) ** 0.5


def regression_values(targets: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Targets as values that a regression learns, see `centred`.

    Args:
        targets: classes int64 [N], or probabilities [N,K].
        n_classes: K.
        dtype: of the values.

    Returns:
        The values [N,K]; differentiable in probabilities.
    """
    soft = F.one_hot(targets, n_classes) if targets.ndim == 1 else targets
    return centred(soft.to(dtype))


def label_loss(
    logits: Tensor,
    targets: Tensor,
    kind: LossKind = "cross_entropy",
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """What students learn by without a teacher.

    Args:
        logits: what the network answers [N,K].
        targets: classes int64 [N], or probabilities [N,K], times the weight of each image.
        kind: cross-entropy, or half of the squared distance between the logits and the centred probabilities,
            see `centred`; an image's loss is multiplied by its weight.
        reduction: the mean over the images, or "none", the loss of each.

    Returns:
        The loss, 0-dim or [N]; differentiable in logits and targets.
    """
    if kind == "cross_entropy":
        return F.cross_entropy(logits, targets, reduction=reduction)
    weights = None if targets.ndim == 1 else targets.sum(1, keepdim=True)
    soft = targets if weights is None else targets / weights.clamp_min(torch.finfo(targets.dtype).tiny)
    errors = (logits - regression_values(soft, logits.shape[1], logits.dtype)).square().sum(1) / 2
    errors = errors if weights is None else weights[:, 0] * errors
    return errors.mean() if reduction == "mean" else errors


def teacher_loss(
    logits: Tensor, images: Tensor, teacher: nn.Module, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Distillation loss T^2 CE(logits / T, softmax(teacher(images) / T)), the mean over the batch.

    Args:
        logits: the student's logits [N,K] for the same images.
        images: the batch [N,C,H,W], as the student saw it.
        teacher: the network that gives the targets; no gradient flows into it.
        temperature: T.
        weights: by which the loss of each image is multiplied [N]; by default 1.

    Returns:
        The loss, 0-dim.

    References:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2.
    """
    with torch.no_grad():
        probabilities = (teacher(images) / temperature).softmax(1)
        if weights is not None:  # cross-entropy is linear in its targets
            probabilities = probabilities * weights[:, None]
    return temperature**2 * F.cross_entropy(logits / temperature, probabilities)
