"""Attention matching: where the maps of a network are large, for the means of real and synthetic images."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core import timing
from bench.core.errors import UserError
from bench.core.networks.base import Network, Shape
from bench.core.networks.layers import ACTIVATIONS

_KINDS = (nn.ReLU, *(kind for kind in ACTIVATIONS.values() if isinstance(kind, type)))


def check_attention(net: Network, image_shape: Shape) -> None:
    """Check that a network has maps to match. Raises UserError for one without."""
    weight = next(net.parameters())
    images = torch.zeros(2, *image_shape, dtype=weight.dtype, device=weight.device)
    activation_maps(net, images)


def activation_maps(net: Network, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The maps after every activation layer, [N,C,h,w] each, and the embeddings [N,D] of a forward pass.

    Raises UserError for a network without maps.
    """
    maps: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.dim() == 4:
            maps.append(output)

    hooks = [m.register_forward_hook(keep) for m in net.modules() if isinstance(m, _KINDS)]
    try:
        embedded = net.embed(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise UserError(
            "attention is of the maps after activation layers, and this network has none: take convnet"
        )
    return maps, embedded


def spatial_attention(maps: Tensor, power: float) -> Tensor:
    """Sum of |value|^power over the channels, as vectors of norm 1: [N,C,h,w] -> [N,h*w]."""
    return F.normalize(maps.abs().pow(power).sum(1).flatten(1), dim=1)


def class_means(net: Network, images: Tensor, n_classes: int, power: float) -> list[Tensor]:
    """What is compared: the mean attention of each layer [K,h*w], and the mean embeddings [K,D].

    The last layer's maps are what the embeddings are made of, and have no attention of their own.

    Args:
        net: the network.
        images: [K*B,C,H,W], class after class.
        n_classes: K.
        power: of the values.
    """
    maps, embedded = activation_maps(net, images)
    features = [*(spatial_attention(one, power) for one in maps[:-1]), embedded]
    return [one.unflatten(0, (n_classes, -1)).mean(1) for one in features]


@timing.charged("synthetic gradient")
def attention_matching(real: list[Tensor], synthetic: list[Tensor], weight: float) -> Tensor:
    """weight x the squared distances of mean attentions + that of mean embeddings, summed over classes.

    Args:
        real: of real images, see `class_means`.
        synthetic: of synthetic images.
        weight: of the attention.

    Returns:
        The loss, 0-dim.

    References:
        Sajedi et al. (DataDAM), ICCV 2023, eq. 2 to 4.
    """
    gaps = [(ours - theirs).square().sum() for ours, theirs in zip(synthetic, real, strict=True)]
    return weight * sum(gaps[:-1], torch.zeros_like(gaps[-1])) + gaps[-1]
