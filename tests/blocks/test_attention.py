"""DataDAM's objective against a direct formula in float64, its gradient against finite differences."""

from typing import Any

import pytest
import torch
from helpers.method import problem_for, small
from helpers.parameterise import noise
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.networks.architecture import parse_architecture
from methods.blocks.attention import (
    activation_maps,
    attention_matching,
    check_attention,
    class_means,
    spatial_attention,
)


def network(name: str = "convnet-d2-w4") -> Any:
    return parse_architecture(name).build((3, 8, 8), 3, random.generator(1)).double()


def direct(net: Any, real: Tensor, synthetic: Tensor, power: float, weight: float) -> float:
    """Class by class, image by image, layer by layer."""
    total = 0.0
    for c in range(3):
        found = []
        for images in (real, synthetic):
            per = len(images) // 3
            attention, embedded = [], []
            for x in images[c * per : (c + 1) * per]:
                first = net.features[2](net.features[1](net.features[0](x[None])))[0]  # after the first ReLU
                one = sum(channel.abs() ** power for channel in first).flatten()
                attention.append(one / one.square().sum().sqrt())
                embedded.append(net.embed(x[None])[0])
            found.append((sum(attention).detach() / per, sum(embedded).detach() / per))
        (a, e), (b, f) = found
        total += float(weight * ((a - b) ** 2).sum() + ((e - f) ** 2).sum())
    return total


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_the_objective_is_the_direct_formula(power: float) -> None:
    net, real, synthetic = network(), noise(12, 3, 8, 8), noise(6, 3, 8, 8, seed=1)
    means = [class_means(net, images, 3, power) for images in (real, synthetic)]
    assert [tuple(one.shape) for one in means[0]] == [(3, 64), (3, 16)]
    expected = direct(net, real, synthetic, power, 100.0)
    assert float(attention_matching(*means, 100.0).detach()) == pytest.approx(expected, rel=1e-12)
    assert attention_matching(means[0], means[0], 100.0) == 0


def test_attention_has_norm_one_and_no_scale() -> None:
    maps = noise(2, 5, 4, 4)
    attention = spatial_attention(maps, 2.0)
    torch.testing.assert_close(attention.norm(dim=1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(spatial_attention(7 * maps, 2.0), attention)


def test_its_gradient_against_finite_differences() -> None:
    net, images = network(), noise(3, 3, 8, 8, seed=2).requires_grad_()
    real = class_means(net, noise(6, 3, 8, 8), 3, 1.0)

    def loss(x: Tensor) -> Tensor:
        return attention_matching(real, class_means(net, x, 3, 1.0), 100.0)

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction, h = noise(3, 3, 8, 8, seed=3), 1e-6
    with torch.no_grad():
        change = float(loss(images + h * direction) - loss(images - h * direction)) / (2 * h)
    assert change == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "layers"), [("convnet-d2-w4", 2), ("convnet-d2-w4-sigmoid", 2), ("resnet10-w4", 9)]
)
def test_every_activation_has_maps(name: str, layers: int) -> None:
    net = parse_architecture(name).build((3, 16, 16), 3, random.generator(1))
    maps, embedded = activation_maps(net, torch.rand(2, 3, 16, 16))
    assert (len(maps), embedded.dim()) == (layers, 2)
    assert not any(m._forward_hooks for m in net.modules())


def test_a_network_without_maps_is_refused() -> None:
    check_attention(network(), (3, 8, 8))
    with pytest.raises(UserError, match="this network has none: take convnet"):
        check_attention(network("mlp"), (3, 8, 8))
    method: Any = small("datadam")
    with pytest.raises(UserError, match="take convnet"):
        method.check(problem_for(architecture="mlp"))
